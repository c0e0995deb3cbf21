"""How the runs of a sweep are: a table that is drawn anew on a terminal, a line for each change in a log."""

import contextlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from fairkd_jax.sweep.folders import progress
from fairkd_jax.sweep.grid import several
from fairkd_jax.sweep.plan import Run
from fairkd_jax.sweep.tasks import BEGUN, LOG

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
LEFT_OUT, STOPPED = "left out", "stopped"
STATES = (RUNNING, WAITING, DONE, FAILED, LEFT_OUT, STOPPED)
OPEN = (RUNNING, WAITING)
_MOST = 12  # runs in the table


@dataclass(eq=False)
class Entry:
    """A run and how it is.

    Attributes:
      run: the run.
      state: one of STATES.
      before: whether it was complete when the sweep began.
      retried: how often it was started again.
      message: why it is in this state, where there is a reason.
    """

    run: Run
    state: str = WAITING
    before: bool = False
    retried: int = 0
    message: str = ""
    _begins: int = 0

    def note_log(self) -> None:
        """Remembers how long the log is before the run starts."""
        with contextlib.suppress(OSError):
            self._begins = os.stat(self.run.folder / LOG).st_size

    def has_begun(self) -> bool:
        """Whether the log says so; an earlier process, on a machine that was lost, may be writing too."""
        with contextlib.suppress(OSError), (self.run.folder / LOG).open("rb") as file:
            file.seek(self._begins)
            return BEGUN.encode() in file.read()
        return False

    def line(self) -> str:
        parts = [self.run.name, self.state]
        if self.state == RUNNING and (steps := progress(self.run.students[0][0])):
            parts.append("step {} of {}".format(*steps))
        if self.retried:
            parts.append(f"retried {self.retried}")
        return "  ".join([*parts, *filter(None, [self.message])])


class Board:
    """Shows the runs on a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._drawn, self._start = 0, time.monotonic()

    def open(self, entries: Sequence[Entry]) -> None:
        """Says what there is to do."""
        before = sum(entry.before for entry in entries if not entry.run.teaches)
        teachers = sum(entry.run.teaches and not entry.before for entry in entries)
        runs = sum(not entry.run.teaches for entry in entries)
        parts = [several(runs, "run"), *([f"{before} complete before"] if before else [])]
        parts += [f"{several(teachers, 'teacher')} to train first"] if teachers else []
        self.note(f"sweep: {', '.join(parts)}")

    def changed(self, entry: Entry) -> None:
        """Tells of a change: each in a log, what went wrong on a terminal, where the table has the rest."""
        if not self._live or entry.message:
            self.note(f"{self._clock()}  {entry.line()}")

    def note(self, line: str) -> None:
        """Prints a line that stays."""
        self._erase()
        print(line, file=self._stream, flush=True)

    def draw(self, entries: Sequence[Entry]) -> None:
        """Draws the table on a terminal."""
        if not self._live:
            return
        width = shutil.get_terminal_size().columns - 1
        lines = [f"{self._clock()}  {counted(entries)}"]
        running = [entry for entry in entries if entry.state == RUNNING]
        lines += [f"  {entry.line()}" for entry in running[:_MOST]]
        if len(running) > _MOST:
            lines.append(f"  and {len(running) - _MOST} more")
        self._erase()
        self._stream.write("".join(f"{line[:width]}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def close(self, entries: Sequence[Entry]) -> None:
        """Says how all ended, and where to read why."""
        self._erase()
        self.note(f"{self._clock()}  {counted(entries)}")
        for entry in entries:
            if entry.state in (FAILED, LEFT_OUT):
                log = f"  ({entry.run.folder / LOG})" if entry.state == FAILED else ""
                self.note(f"  {entry.line()}{log}")

    def _clock(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


def counted(entries: Sequence[Entry]) -> str:
    """`1 running, 3 done`."""
    numbers = Counter(entry.state for entry in entries)
    return ", ".join(f"{numbers[state]} {state}" for state in STATES if numbers[state])
