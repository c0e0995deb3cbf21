"""Writers of a run's numbers: a JSON file, TensorBoard's files, and a user's function."""

import functools
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

import jax

from fairkd_jax.errors import MissingExtraError, UsageError, writing
from fairkd_jax.files import make_jsonable, parse_json, write_text
from fairkd_jax.runs.paths import RunFolder


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
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        lines = text.splitlines()
        kept = [line for line in lines if _read_step(line) <= resume_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the numbers of a step, by name."""
        with writing(f"write to {self._file.name}", "make room, and start the same command again"):
            self._file.write(json.dumps({"step": step, **make_jsonable(scalars)}) + "\n")
            self._file.flush()

    def flush(self) -> None:
        """Hands all written lines to the file system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _read_step(line: str) -> float:
    """Returns the step of a line; infinity for a line that was cut short or is damaged."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return step if isinstance(step, int | float) and not math.isnan(step) else math.inf


class TensorboardWriter:
    """A writer of TensorBoard's event files, one scalar for each name."""

    def __init__(self, workdir: Path, resume_step: int) -> None:
        """Opens the event file in a run's folder.

        Args:
          workdir: The run's folder.
          resume_step: The step from which the run goes on; TensorBoard hides what came after this step.

        Raises:
          UsageError: tensorboardX is not installed.
        """
        self._file = require_tensorboard().SummaryWriter(
            str(RunFolder(workdir).tensorboard), purge_step=resume_step + 1 if resume_step else None
        )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the numbers of a step, by name."""
        for name, value in scalars.items():
            self._file.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hands all written numbers to the file system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class FunctionWriter:
    """A writer that calls a user's function with the step and the numbers."""

    def __init__(self, function: Callable[..., Any], workdir: Path) -> None:
        """Takes the function.

        Args:
          function: Function of the step and of a dict of numbers by name. A function with a parameter
            `folder` also receives the run's folder, which tells a teacher from a student.
          workdir: The run's folder.
        """
        self._write = functools.partial(function, **_select_options(function, workdir))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Calls the function.

        Raises:
          RuntimeError: The function raised an exception.
        """
        try:
            self._write(step, dict(scalars))
        except Exception as error:
            raise RuntimeError(f"the function of writer failed at step {step}: {error}") from error

    def flush(self) -> None:
        """Does nothing: the function keeps or sends what it receives."""

    def close(self) -> None:
        """Does nothing."""


def require_tensorboard() -> Any:
    """Imports the module that writes TensorBoard's event files.

    Raises:
      UsageError: tensorboardX is not installed.
    """
    try:
        import tensorboardX
    except ImportError as error:
        raise MissingExtraError("tensorboard=True needs", "tensorboard", error) from error
    return tensorboardX


def import_writer(name: str) -> Callable[..., Any]:
    """Imports a function of the user that receives the numbers of a run.

    Args:
      name: Module and function, as `module:function`. The module may lie in the current folder.

    Returns:
      The function; see `FunctionWriter`.

    Raises:
      UsageError: There is no such module or function.
    """
    advice = "write module:function, with a module that Python finds here"
    if not re.fullmatch(r"[\w.]+:[\w.]+", name):
        raise UsageError(f"writer={name!r} names no function; {advice}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # for good: the function may import another module later
    try:
        function: Any = resolve_name(name)
    except (Exception, SystemExit) as error:  # the module is code of the user
        raise UsageError(f"writer={name!r} cannot be imported ({error!r}); {advice}") from error
    if not callable(function):
        raise UsageError(f"writer={name!r} is no function; {advice}")
    try:
        inspect.signature(function).bind(0, {}, **_select_options(function, Path()))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"writer={name!r} must take a step and a dict of numbers, and may take `folder` ({error})"
        ) from error
    return function  # type: ignore[no-any-return]


def _select_options(function: Callable[..., Any], workdir: Path) -> dict[str, Path]:
    """Returns the keyword arguments that a user's function asks for."""
    return {"folder": workdir} if "folder" in inspect.signature(function).parameters else {}


def open_writers(workdir: Path, step: int, *, tensorboard: bool, function: str) -> list[Writer]:
    """Opens the writers of a student's numbers, in the first process.

    Args:
      workdir: The student's folder.
      step: Step from which the run goes on.
      tensorboard: Whether TensorBoard's event files are written.
      function: Name of a user's function, see `import_writer`; "" for none.

    Raises:
      UsageError: tensorboardX is not installed, or there is no such function.
    """
    if jax.process_index():
        return []
    writers: list[Writer] = [JsonlWriter(RunFolder(workdir).metrics, step)]
    if tensorboard:
        writers.append(TensorboardWriter(workdir, step))
    if function:
        writers.append(FunctionWriter(import_writer(function), workdir))
    return writers
