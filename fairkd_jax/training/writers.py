"""Writers of a run's numbers: a JSON file, and TensorBoard where it is installed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fairkd_jax.errors import UsageError
from fairkd_jax.files import make_jsonable, write_text
from fairkd_jax.runs.folder import RunFolder


class Writer(Protocol):
    """The part of `clu.metric_writers.MetricWriter` that a run uses."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the numbers of a step, by name."""

    def flush(self) -> None:
        """Hands all written numbers to the file system."""

    def close(self) -> None:
        """Closes the file."""


class JsonlWriter:
    """A writer of one line of JSON for each call: the step, then each name with its value."""

    def __init__(self, path: Path, resume_step: int) -> None:
        """Opens the file, and drops the lines of steps after `resume_step`, which the run repeats.

        Args:
          path: The file.
          resume_step: The step from which the run goes on.
        """
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _read_step(line) <= resume_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the numbers of a step, by name."""
        self._file.write(json.dumps({"step": step, **make_jsonable(scalars)}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Hands all written lines to the file system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _read_step(line: str) -> float:
    """Returns the step of a line; infinity for a line that was cut short."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def require_tensorboard() -> Any:
    """Imports the module that writes TensorBoard's event files.

    Raises:
      UsageError: TensorBoard or TensorFlow is not installed.
    """
    try:
        from clu import metric_writers
    except ImportError as error:
        raise UsageError(
            f"tensorboard=True needs the extra `tensorboard` ({error}); start the command with"
            " `python3 scripts/with_env.py --extra tensorboard`"
        ) from error
    return metric_writers


def open_tensorboard(workdir: Path) -> Writer:
    """Opens a writer of TensorBoard's event files in a run's folder."""
    return require_tensorboard().SummaryWriter(str(RunFolder(workdir).tensorboard))
