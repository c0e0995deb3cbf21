"""Which run starts when: teachers before their students, so many at once, again where one was killed."""

import signal
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fairkd_jax.sweep.grid import several
from fairkd_jax.sweep.plan import Run
from fairkd_jax.sweep.states import DONE, FAILED, LEFT_OUT, OPEN, RUNNING, STOPPED, WAITING, Board, Entry
from fairkd_jax.sweep.tasks import SIGNALLED, Job, Outcome

POLL = 1.0  # seconds between two looks
_STOPPING = "stopping: every run saves its state first (a second time: at once)"


class Launcher(Protocol):
    """Where jobs run."""

    def start(self, job: Job) -> Hashable:
        """Starts a job, now or as soon as there is room for it."""

    def finished(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Those of some jobs that have ended; waits so long for them."""

    def stop(self, handles: Sequence[Any], *, at_once: bool) -> None:
        """Asks jobs to save their state and end, or ends them at once."""


class SweepFailed(RuntimeError):
    """Not all runs of a sweep are complete."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals(AbstractContextManager["Signals"]):
    """Counts SIGINT and SIGTERM: the first one stops the runs, a second one ends them at once."""

    def __init__(self) -> None:
        self.count, self.number = 0, 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.count, self.number = self.count + 1, number


def run_all(
    runs: Sequence[Run],
    launcher: Launcher,
    *,
    job_of: Callable[[Run], Job | None],
    retries: int,
    parallel: int,
    board: Board,
    poll: float = POLL,
) -> None:
    """Does all runs of a sweep.

    Args:
      runs: each one after the one that it needs.
      launcher: where they run.
      job_of: what is left to be done of a run; None where it is complete.
      retries: how often a run is started again that was killed, or whose machine was lost.
      parallel: how many may be started at once; 0: all, and the launcher queues them.
      board: what shows how they are.
      poll: seconds between two looks.

    Raises:
      SweepFailed: some are not complete, or a signal stopped them.
    """
    with Signals() as signals:
        sweep = _Sweep(runs, launcher, job_of, retries, parallel, board)
        while sweep.is_open():
            sweep.step(signals.count, poll)
    board.close(sweep.entries)
    if signals.count:
        raise SweepFailed("stopped; the same command goes on", 128 + signals.number)
    bad = sum(entry.state in (FAILED, LEFT_OUT) for entry in sweep.entries)
    if bad:
        raise SweepFailed(f"{bad} of {several(len(sweep.entries), 'run')} not complete; see the logs above")


class _Sweep:
    def __init__(
        self,
        runs: Sequence[Run],
        launcher: Launcher,
        job_of: Callable[[Run], Job | None],
        retries: int,
        parallel: int,
        board: Board,
    ) -> None:
        self._launcher, self._job_of, self._board = launcher, job_of, board
        self._retries, self._parallel = retries, parallel
        self._stops = 0
        self._running: dict[Any, Entry] = {}
        needed = set()
        self.entries = [Entry(run) for run in runs]
        for entry in reversed(self.entries):  # a teacher only where a student still needs it
            if (entry.run.teaches and entry.run.name not in needed) or job_of(entry.run) is None:
                entry.state, entry.before = DONE, True
            else:
                needed.add(entry.run.needs)
        self._by_name = {entry.run.name: entry for entry in self.entries}
        board.open(self.entries)

    def is_open(self) -> bool:
        return bool(self._running) or (not self._stops and any(e.state in OPEN for e in self.entries))

    def step(self, stops: int, poll: float) -> None:
        """Starts what can start, and looks at what has ended."""
        if stops > self._stops:
            self._stops += 1  # one after the other: what ends at once must have been told to end
            self._board.note(_STOPPING if self._stops == 1 else "stopping at once")
            self._launcher.stop(list(self._running), at_once=self._stops > 1)
            for entry in self.entries:
                if entry.state == WAITING and entry not in self._running.values():
                    self._set(entry, STOPPED)
        if not self._stops:
            self._start_what_can()
        for handle, outcome in self._launcher.finished(list(self._running), poll):
            self._settle(self._running.pop(handle), outcome)
        for entry in self._running.values():
            if entry.state == WAITING and entry.has_begun():
                self._set(entry, RUNNING)
        self._board.draw(self.entries)

    def _start_what_can(self) -> None:
        started = list(self._running.values())
        for entry in self.entries:
            if entry.state != WAITING or entry in started:
                continue
            teacher = self._by_name.get(entry.run.needs)
            if teacher is not None and teacher.state in (FAILED, LEFT_OUT):
                self._set(entry, LEFT_OUT, f"its teacher failed: {teacher.run.name}")
                continue
            if teacher is not None and teacher.state != DONE:
                continue
            if self._parallel and len(self._running) >= self._parallel:
                return
            job = self._job_of(entry.run)
            if job is None:
                self._set(entry, DONE)
                continue
            entry.note_log()
            self._running[self._launcher.start(job)] = entry

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.code == 0:
            self._set(entry, DONE)
        elif self._stops:
            self._set(entry, STOPPED)
        elif outcome.code >= SIGNALLED and entry.retried < self._retries:
            entry.retried += 1
            self._set(
                entry,
                WAITING,
                f"killed ({outcome.message or outcome.code}); again, {entry.retried} of {self._retries}",
            )
        else:
            self._set(entry, FAILED, outcome.message or f"exit code {outcome.code}")

    def _set(self, entry: Entry, state: str, message: str = "") -> None:
        entry.state, entry.message = state, message
        self._board.changed(entry)
