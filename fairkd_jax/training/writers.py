"""Where a run's numbers go: a line on the screen, `metrics.jsonl`, and TensorBoard where it is installed."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import jax
from tqdm import tqdm

from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text


def jsonable(value: Any) -> Any:
    """The value with NaN and infinity as None, which JSON can carry."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Writer(Protocol):
    """The part of `clu.metric_writers.MetricWriter` that a run uses."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class JsonlWriter:
    """A line of JSON per call: the step, then name: value."""

    def __init__(self, path: Path, resume_step: int) -> None:
        """Opens the file and drops the lines of steps after `resume_step`, which will be made again."""
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= resume_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **jsonable(scalars)}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    """The step of a line; infinity for a line that was cut short."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def require_tensorboard() -> Any:
    """The module that writes TensorBoard's event files.

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


def tensorboard_writer(workdir: Path) -> Writer:
    """A writer of TensorBoard's event files, in the run's folder."""
    return require_tensorboard().SummaryWriter(str(workdir / "tensorboard"))


class Progress:
    """How far a run is: a bar on a terminal, a line now and then in a log file."""

    def __init__(
        self, name: str, *, step: int, total_steps: int, batch_size: int, stream: TextIO | None = None
    ) -> None:
        """Starts at `step` of `total_steps`; `name` stands in front of each line.

        The clock starts at the first `advance`: what is compiled before it says nothing of the speed.
        """
        if stream is None:  # of several processes, one speaks
            stream = open(os.devnull, "w") if jax.process_index() else sys.stderr  # noqa: SIM115
        self._name, self._total, self._stream = name, total_steps, stream
        self._batch_size = batch_size
        self._start_step, self._start = step, 0.0
        self._last_step, self._last = step, 0.0
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total_steps, initial=step, desc=name, unit="step", file=self._stream, leave=True
            )

    def advance(self, step: int) -> None:
        """Counts a step, and moves a terminal's bar to it."""
        if not self._start:
            self._start_step = self._last_step = step
            self._start = self._last = time.monotonic()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def rate(self, step: int) -> float:
        """Images per second since this was last asked."""
        now = time.monotonic()
        rate = self._batch_size * (step - self._last_step) / max(now - self._last, 1e-9)
        self._last_step, self._last = step, now
        return rate

    def report(self, step: int, rate: float, scalars: Mapping[str, float]) -> None:
        """Shows the numbers of the steps since the last report, and the images per second."""
        speed = [f"{rate:,.0f} images/s"] if rate else []
        numbers = "  ".join([*speed, *(f"{name} {value:.3g}" for name, value in scalars.items())])
        if self._bar is not None:
            self._bar.set_postfix_str(numbers)
            return
        line = f"step {step}/{self._total}  {numbers}"
        done = step - self._start_step
        if done > 0:
            elapsed = time.monotonic() - self._start
            line += f"  {_clock((self._total - step) * elapsed / done)} left"
        self._print(line)

    def note(self, text: str) -> None:
        """Prints a line of its own."""
        if self._bar is not None:
            self._bar.write(f"{self._name}: {text}", file=self._stream)
        else:
            self._print(text)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _print(self, text: str) -> None:
        print(f"{self._name}: {text}", file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
