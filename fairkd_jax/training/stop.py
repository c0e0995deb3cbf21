"""Stopping a run from outside without losing what it learnt."""

import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from fairkd_jax.training.cluster import largest
from fairkd_jax.training.sharding import over_batch, to_global
from fairkd_jax.training.step import Step
from fairkd_jax.types import Batch, Tree

# In a batch, int32 [B]: the signal that a process got, in its part, or 0. In the metrics, one for all.
STOP = "stop"


class Stopped(RuntimeError):
    """The run was asked to stop, and its state was saved."""

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        super().__init__(f"stopped at step {step} of {total_steps}; the same command goes on from there")
        self.exit_code = 128 + signal_number


class StopRequest(AbstractContextManager["StopRequest"]):
    """Notes SIGINT and SIGTERM, so that the loop can save its state; a second one acts at once.

    Of several processes, those who stopped by themselves would leave the others waiting in a reduction. What
    one of them is told goes through the compiled step, whose metrics bring it to all after the same step.

    Attributes:
      signal: what to stop for after this step; None to go on.
    """

    def __init__(self, mesh: jax.sharding.Mesh) -> None:
        self.signal: int | None = None
        self._noted = 0
        self._sharding = over_batch(mesh) if jax.process_count() > 1 else None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def tell(self, batch: Batch, rows: int) -> Batch:
        """Adds what was noted to a batch of so many rows, where there are others to be told."""
        if self._sharding is None:
            return batch
        own = np.full(rows // jax.process_count(), self._noted, np.int32)
        return {**batch, **to_global({STOP: own}, self._sharding)}

    def hear(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Takes what the processes told out of the metrics of a step."""
        metrics = dict(metrics)
        self.signal = int(metrics.pop(STOP, 0)) or self.signal
        return metrics

    def ask_all(self) -> None:
        """Takes what was noted since the last step, after which no other tells of it."""
        if self._sharding is not None:
            self.signal = largest(self._noted) or self.signal

    def _note(self, number: int, frame: object) -> None:
        self._noted = number
        if self._sharding is None:
            self.signal = number
        signal.signal(number, self._previous[number])
        print("stopping once this step is saved; a second time: at once", file=sys.stderr, flush=True)


def passing_on(step: Step) -> Step:
    """The same update, which passes on what `StopRequest.tell` added to the batch."""

    def told(state: Any, teacher_variables: Tree, batch: Batch, weights: Mapping[str, jax.Array]) -> Any:
        batch = dict(batch)
        stop = batch.pop(STOP, None)
        state, metrics = step(state, teacher_variables, batch, weights)
        return state, metrics if stop is None else {**metrics, STOP: stop.max()}

    return told
