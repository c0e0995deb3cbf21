"""The progress of long work: a bar on a terminal, a line now and then in a log file."""

import logging as standard_logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

import jax
from absl import logging
from tqdm import tqdm

from fairkd_jax.run_log import write_log

_BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}"
_LEAST_BAR = 10  # columns


class Progress:
    """The progress of a run: a bar on a terminal, a line now and then in a log file."""

    def __init__(
        self,
        name: str,
        *,
        step: int,
        total_steps: int,
        batch_size: int,
        steps_per_epoch: float = 0.0,
        stream: TextIO | None = None,
    ) -> None:
        """Starts at a step; the clock and the bar start at the first `advance`, after the compilation.

        Args:
          name: Text in front of each line.
          step: Number of steps that are done.
          total_steps: Number of all steps.
          batch_size: Number of images in a step.
          steps_per_epoch: Number of steps in an epoch, not necessarily whole; 0 for work without epochs.
          stream: Where the progress goes; by default stderr of the first process.
        """
        if stream is None:  # a single process prints
            stream = open(os.devnull, "w") if jax.process_index() else sys.stderr  # noqa: SIM115
        self._name, self._total, self._stream = name, total_steps, stream
        self._batch_size = batch_size
        self._start_step, self._start = step, 0.0
        self._last_step, self._last = step, 0.0
        self._steps_per_epoch = steps_per_epoch
        self._bar: tqdm | None = None

    def advance(self, step: int) -> None:
        """Moves the progress to a step."""
        if not self._start:
            self._start_step = self._last_step = step
            self._start = self._last = time.monotonic()
            if self._stream.isatty():
                self._open_bar(step)
        if self._bar is not None:
            self._bar.set_description_str(self._describe(step), refresh=False)
            self._bar.update(step - self._bar.n)

    def _open_bar(self, step: int) -> None:
        self._bar = tqdm(
            desc=self._describe(step),
            total=self._total,
            initial=step,
            file=self._stream,
            bar_format=_BAR,
            dynamic_ncols=True,
        )
        logging.get_absl_handler().addFilter(self._clear_bar)

    def _clear_bar(self, record: standard_logging.LogRecord) -> bool:
        """Takes the bar away before a line of the log, which would stand beside it; the bar comes again."""
        del record
        if self._bar is not None:
            self._bar.clear()
        return True

    def _describe(self, step: int) -> str:
        if not self._steps_per_epoch:
            return self._name
        epochs = round(self._total / self._steps_per_epoch)
        return f"{self._name} epoch {min(epochs, int((step - 1) / self._steps_per_epoch) + 1)}/{epochs}"

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
        numbers = [f"{name} {value:.3g}" for name, value in scalars.items()]
        line = f"step {step}/{self._total}  {'  '.join([*speed, *numbers])}"
        done = step - self._start_step
        if done > 0:
            elapsed = time.monotonic() - self._start
            line += f"  {_format_time((self._total - step) * elapsed / done)} left"
        if self._bar is None:
            self._print(line)
        else:
            self._bar.set_postfix_str(self._choose_numbers(step, numbers), refresh=False)
            write_log(f"{self._name}: {line}")

    def _choose_numbers(self, step: int, numbers: list[str]) -> str:
        """Chooses the first numbers that leave room for the bar on this terminal."""
        taken = len(f"{self._describe(step)} 100%|| {step}/{self._total} 00:00:00 left") + _LEAST_BAR
        room, shown = shutil.get_terminal_size().columns - taken, list[str]()
        for text in numbers:
            if len(", ".join([*shown, text])) + 2 > room:
                break
            shown.append(text)
        return ", ".join(shown)

    def note(self, text: str) -> None:
        """Prints a separate line."""
        if self._bar is None:
            self._print(text)
        else:
            self._bar.write(f"{self._name}: {text}", file=self._stream)
            write_log(f"{self._name}: {text}")

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            logging.get_absl_handler().removeFilter(self._clear_bar)
            self._bar.close()

    def _print(self, text: str) -> None:
        print(f"{self._name}: {text}", file=self._stream, flush=True)
        write_log(f"{self._name}: {text}")


def _format_time(seconds: float) -> str:
    """Formats a number of seconds as minutes and seconds, with hours where there are some."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
