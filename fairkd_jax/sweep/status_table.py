"""Status of the runs of a sweep: a live table on a terminal, one line for each change in a log."""

import contextlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from fairkd_jax.runs.status import find_progress
from fairkd_jax.sweep.grid import format_count
from fairkd_jax.sweep.planned_runs import PlannedRun
from fairkd_jax.sweep.worker import LOG, START_MARK

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
LEFT_OUT, STOPPED = "left out", "stopped"
STATUSES = (RUNNING, WAITING, DONE, FAILED, LEFT_OUT, STOPPED)
UNFINISHED = (RUNNING, WAITING)
_MAX_ROWS = 12


@dataclass(eq=False)
class PointStatus:
    """Status of one run of a sweep: a point of the grid, or a teacher.

    Attributes:
      run: Planned run.
      status: One of STATUSES.
      was_complete: Whether the run was complete when the sweep began.
      num_retries: Number of times that the run was started again.
      message: Reason for the status; empty where there is none.
    """

    run: PlannedRun
    status: str = WAITING
    was_complete: bool = False
    num_retries: int = 0
    message: str = ""
    _log_size: int = 0

    def record_log_size(self) -> None:
        """Records the size of the log before the run starts."""
        with contextlib.suppress(OSError):
            self._log_size = os.stat(self.run.folder / LOG).st_size

    def has_started(self) -> bool:
        """Returns whether the log has a new start mark.

        New text alone is no proof: an earlier process, on a lost machine, may still write to the log.
        """
        with contextlib.suppress(OSError), (self.run.folder / LOG).open("rb") as file:
            file.seek(self._log_size)
            return START_MARK.encode() in file.read()
        return False

    def format_line(self) -> str:
        """Formats the name, status, progress, retries and message in one line."""
        parts = [self.run.name, self.status]
        if self.status == RUNNING and (steps := find_progress(self.run.students[0][0])):
            parts.append("step {} of {}".format(*steps))
        if self.num_retries:
            parts.append(f"retried {self.num_retries}")
        return "  ".join([*parts, *filter(None, [self.message])])


class StatusTable:
    """Table that shows the status of each run on a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Starts the clock of the table.

        Args:
          stream: Terminal or log; stderr by default.
        """
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._drawn_lines, self._start = 0, time.monotonic()

    def print_plan(self, points: Sequence[PointStatus]) -> None:
        """Prints the number of runs, of complete runs and of teachers to train."""
        complete = sum(point.was_complete for point in points if not point.run.is_teacher)
        teachers = sum(point.run.is_teacher and not point.was_complete for point in points)
        runs = sum(not point.run.is_teacher for point in points)
        parts = [format_count(runs, "run"), *([f"{complete} complete before"] if complete else [])]
        parts += [f"{format_count(teachers, 'teacher')} to train first"] if teachers else []
        self.print_line(f"sweep: {', '.join(parts)}")

    def report_change(self, point: PointStatus) -> None:
        """Prints the new status of a run; on a terminal, where the table shows the status, only a message."""
        if not self._is_terminal or point.message:
            self.print_line(f"{self._format_clock()}  {point.format_line()}")

    def print_line(self, line: str) -> None:
        """Prints a line that stays above the table."""
        self._erase_table()
        print(line, file=self._stream, flush=True)

    def draw(self, points: Sequence[PointStatus]) -> None:
        """Draws the table again on a terminal; does nothing in a log."""
        if not self._is_terminal:
            return
        width = shutil.get_terminal_size().columns - 1
        lines = [f"{self._format_clock()}  {format_status_counts(points)}"]
        running = [point for point in points if point.status == RUNNING]
        lines += [f"  {point.format_line()}" for point in running[:_MAX_ROWS]]
        if len(running) > _MAX_ROWS:
            lines.append(f"  and {len(running) - _MAX_ROWS} more")
        self._erase_table()
        self._stream.write("".join(f"{line[:width]}\n" for line in lines))
        self._stream.flush()
        self._drawn_lines = len(lines)

    def print_result(self, points: Sequence[PointStatus]) -> None:
        """Prints the number of runs by status, and each failed run with its log."""
        self._erase_table()
        self.print_line(f"{self._format_clock()}  {format_status_counts(points)}")
        for point in points:
            if point.status in (FAILED, LEFT_OUT):
                log = f"  ({point.run.folder / LOG})" if point.status == FAILED else ""
                self.print_line(f"  {point.format_line()}{log}")

    def _format_clock(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def _erase_table(self) -> None:
        if self._drawn_lines:
            self._stream.write(f"\x1b[{self._drawn_lines}F\x1b[J")
            self._drawn_lines = 0


def format_status_counts(points: Sequence[PointStatus]) -> str:
    """Formats the number of runs by status, such as `1 running, 3 done`."""
    numbers = Counter(point.status for point in points)
    return ", ".join(f"{numbers[status]} {status}" for status in STATUSES if numbers[status])
