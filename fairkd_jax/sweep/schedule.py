"""Starts the runs of a sweep in their order: teachers before their students, killed runs again."""

import signal
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fairkd_jax.sweep.grid import format_count
from fairkd_jax.sweep.planned_runs import PlannedRun
from fairkd_jax.sweep.status_table import (
    DONE,
    FAILED,
    LEFT_OUT,
    RUNNING,
    STOPPED,
    UNFINISHED,
    WAITING,
    PointStatus,
    StatusTable,
)
from fairkd_jax.sweep.worker import SIGNAL_BASE, Job, Outcome

POLL = 1.0  # seconds between two checks of the jobs
_STOPPING = "stopping: every run saves its state first; a second Ctrl-C stops all runs at once"


class Launcher(Protocol):
    """Interface to the machines that run jobs."""

    def start(self, job: Job) -> Hashable:
        """Starts a job now, or as soon as a machine has room.

        Returns:
          Handle of the job.
        """

    def collect_finished(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Waits for jobs, and returns the handle and outcome of each finished job.

        Args:
          handles: Handles of the jobs.
          seconds: Longest time to wait.
        """

    def stop(self, handles: Sequence[Any], *, at_once: bool) -> None:
        """Asks jobs to save their state and end, or kills their workers.

        Args:
          handles: Handles of the jobs.
          at_once: Whether to kill the workers.
        """


class SweepError(RuntimeError):
    """Error for a sweep with runs that are not complete.

    Attributes:
      exit_code: Exit code for the program.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        """Keeps the exit code.

        Args:
          message: One line for the user.
          exit_code: Exit code for the program.
        """
        super().__init__(message)
        self.exit_code = exit_code


class SignalCounter(AbstractContextManager["SignalCounter"]):
    """Counter of SIGINT and SIGTERM: the first signal stops the runs, the second kills the runs at once.

    Attributes:
      count: Number of signals so far.
      number: Number of the last signal; 0 before the first.
    """

    def __init__(self) -> None:
        """Starts at zero signals."""
        self.count, self.number = 0, 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "SignalCounter":
        """Installs the handlers of both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._count_signal)
        return self

    def __exit__(self, *error: object) -> None:
        """Restores the earlier handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _count_signal(self, number: int, frame: object) -> None:
        self.count, self.number = self.count + 1, number


def run_sweep(
    runs: Sequence[PlannedRun],
    launcher: Launcher,
    *,
    make_job: Callable[[PlannedRun], Job | None],
    retries: int,
    parallel: int,
    table: StatusTable,
    poll: float = POLL,
) -> None:
    """Runs all planned runs of a sweep.

    Args:
      runs: Planned runs, each run after its teacher.
      launcher: Interface to the machines.
      make_job: Function from a run to its job; None where the run is complete.
      retries: Most times that a killed run, or a run on a lost machine, is started again.
      parallel: Most jobs in the launcher at a time; 0 starts all jobs, and the launcher queues them.
      table: Table that shows the status of the runs.
      poll: Seconds between two checks of the jobs.

    Raises:
      SweepError: Some runs are not complete, or a signal stopped the sweep.
    """
    with SignalCounter() as signals:
        sweep = _Sweep(runs, launcher, make_job, retries, parallel, table)
        while sweep.is_unfinished():
            sweep.advance(signals.count, poll)
    table.print_result(sweep.points)
    if signals.count:
        raise SweepError("stopped; start the same command again to continue", 128 + signals.number)
    incomplete = sum(point.status in (FAILED, LEFT_OUT) for point in sweep.points)
    if incomplete:
        total = format_count(len(sweep.points), "run")
        raise SweepError(f"{incomplete} of {total} not complete; see the logs above")


class _Sweep:
    """Jobs of a sweep that wait or run, and the status of each run."""

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        launcher: Launcher,
        make_job: Callable[[PlannedRun], Job | None],
        retries: int,
        parallel: int,
        table: StatusTable,
    ) -> None:
        self._launcher, self._make_job, self._table = launcher, make_job, table
        self._max_retries, self._parallel = retries, parallel
        self._stop_requests = 0
        self._running: dict[Any, PointStatus] = {}
        needed = set()
        self.points = [PointStatus(run) for run in runs]
        for point in reversed(self.points):  # students first, so that a teacher without students is skipped
            if (point.run.is_teacher and point.run.name not in needed) or make_job(point.run) is None:
                point.status, point.was_complete = DONE, True
            else:
                needed.add(point.run.teacher_name)
        self._by_name = {point.run.name: point for point in self.points}
        table.print_plan(self.points)

    def is_unfinished(self) -> bool:
        return bool(self._running) or (
            not self._stop_requests and any(point.status in UNFINISHED for point in self.points)
        )

    def advance(self, stop_requests: int, poll: float) -> None:
        """Starts jobs that are ready, and collects jobs that have finished.

        Args:
          stop_requests: Number of stop signals so far.
          poll: Longest time to wait for finished jobs, in seconds.
        """
        if stop_requests > self._stop_requests:
            # A single request in each call, even after two signals: first, each job must save its state.
            self._stop_requests += 1
            self._table.print_line(_STOPPING if self._stop_requests == 1 else "stopping at once")
            self._launcher.stop(list(self._running), at_once=self._stop_requests > 1)
            for point in self.points:
                if point.status == WAITING and point not in self._running.values():
                    self._set_status(point, STOPPED)
        if not self._stop_requests:
            self._start_ready_runs()
        for handle, outcome in self._launcher.collect_finished(list(self._running), poll):
            self._record_outcome(self._running.pop(handle), outcome)
        for point in self._running.values():
            if point.status == WAITING and point.has_started():
                self._set_status(point, RUNNING)
        self._table.draw(self.points)

    def _start_ready_runs(self) -> None:
        started = list(self._running.values())
        for point in self.points:
            if point.status != WAITING or point in started:
                continue
            teacher = self._by_name.get(point.run.teacher_name)
            if teacher is not None and teacher.status in (FAILED, LEFT_OUT):
                self._set_status(point, LEFT_OUT, f"its teacher failed: {teacher.run.name}")
                continue
            if teacher is not None and teacher.status != DONE:
                continue
            if self._parallel and len(self._running) >= self._parallel:
                return
            job = self._make_job(point.run)
            if job is None:
                self._set_status(point, DONE)
                continue
            point.record_log_size()
            self._running[self._launcher.start(job)] = point

    def _record_outcome(self, point: PointStatus, outcome: Outcome) -> None:
        if outcome.code == 0:
            self._set_status(point, DONE)
        elif self._stop_requests:
            self._set_status(point, STOPPED)
        elif outcome.code >= SIGNAL_BASE and point.num_retries < self._max_retries:
            point.num_retries += 1
            reason = f"killed ({outcome.message or outcome.code})"
            self._set_status(point, WAITING, f"{reason}; retry {point.num_retries} of {self._max_retries}")
        else:
            self._set_status(point, FAILED, outcome.message or f"exit code {outcome.code}")

    def _set_status(self, point: PointStatus, status: str, message: str = "") -> None:
        point.status, point.message = status, message
        self._table.report_change(point)
