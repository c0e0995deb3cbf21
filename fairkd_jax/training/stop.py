"""Stopping a run from outside without losing what it learnt."""

import signal
import sys
import threading
from contextlib import AbstractContextManager
from typing import Any


class Stopped(RuntimeError):
    """The run was asked to stop, and its state was saved."""

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        super().__init__(f"stopped at step {step} of {total_steps}; the same command goes on from there")
        self.exit_code = 128 + signal_number


class StopRequest(AbstractContextManager["StopRequest"]):
    """Notes SIGINT and SIGTERM, so that the loop can save its state; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.signal = number
        signal.signal(number, self._previous[number])
        print("stopping once this step is saved; a second time: at once", file=sys.stderr, flush=True)
