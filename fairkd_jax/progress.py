"""The progress of long work: a bar on a terminal, a line now and then in a log file."""

import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

import jax
from tqdm import tqdm


class Progress:
    """The progress of a run: a bar on a terminal, a line now and then in a log file."""

    def __init__(
        self, name: str, *, step: int, total_steps: int, batch_size: int, stream: TextIO | None = None
    ) -> None:
        """Starts at a step; the clock starts at the first `advance`, after the compilation.

        Args:
          name: Text in front of each line.
          step: Number of steps that are done.
          total_steps: Number of all steps.
          batch_size: Number of images in a step.
          stream: Where the progress goes; by default stderr of the first process.
        """
        if stream is None:  # a single process prints
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
        """Moves the progress to a step."""
        if not self._start:
            self._start_step = self._last_step = step
            self._start = self._last = time.monotonic()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def measure_rate(self, step: int) -> float:
        """Returns the number of images per second since the last call."""
        now = time.monotonic()
        rate = self._batch_size * (step - self._last_step) / max(now - self._last, 1e-9)
        self._last_step, self._last = step, now
        return rate

    def report(self, step: int, rate: float, scalars: Mapping[str, float]) -> None:
        """Shows the numbers since the last report, and the images per second.

        Args:
          step: The current step.
          rate: Number of images per second; 0.0 shows none.
          scalars: Numbers by name.
        """
        speed = [f"{rate:,.0f} images/s"] if rate else []
        numbers = "  ".join([*speed, *(f"{name} {value:.3g}" for name, value in scalars.items())])
        if self._bar is not None:
            self._bar.set_postfix_str(numbers)
            return
        line = f"step {step}/{self._total}  {numbers}"
        done = step - self._start_step
        if done > 0:
            elapsed = time.monotonic() - self._start
            line += f"  {_format_time((self._total - step) * elapsed / done)} left"
        self._print(line)

    def note(self, text: str) -> None:
        """Prints a separate line."""
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


def _format_time(seconds: float) -> str:
    """Formats a number of seconds as minutes and seconds, with hours where there are some."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
