"""Stopping a run by a signal without losing its state."""

import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from fairkd_jax.distributed import max_over_hosts
from fairkd_jax.engine.sharding import make_batch_sharding, to_global
from fairkd_jax.engine.train_step import Step
from fairkd_jax.types import Batch, Tree

# In a batch, int32 [B]: the signal that a process received, or 0. In the metrics, the largest signal of all.
STOP = "stop"


class Stopped(RuntimeError):
    """A signal stopped the run, and its state was saved."""

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        """Makes the message for a run that stopped at a step."""
        super().__init__(f"stopped at step {step} of {total_steps}; the same command goes on from there")
        self.exit_code = 128 + signal_number


class StopRequest(AbstractContextManager["StopRequest"]):
    """A request to stop by SIGINT or SIGTERM, after which the loop saves its state.

    A second signal acts at once. A process that stopped by itself would leave the other processes waiting in
    a reduction. A signal to one process therefore goes through the compiled step, whose metrics bring it to
    all processes after the same step.

    Attributes:
      signal: Number of the signal to stop for after this step; None to go on.
    """

    def __init__(self, mesh: jax.sharding.Mesh) -> None:
        """Prepares the request for the processes of a mesh."""
        self.signal: int | None = None
        self._noted = 0
        self._sharding = make_batch_sharding(mesh) if jax.process_count() > 1 else None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Installs the handlers of both signals, in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        """Restores the handlers from before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def attach_flag(self, batch: Batch, rows: int) -> Batch:
        """Adds the received signal to a batch of `rows` images, where there are other processes."""
        if self._sharding is None:
            return batch
        own = np.full(rows // jax.process_count(), self._noted, np.int32)
        return {**batch, **to_global({STOP: own}, self._sharding)}

    def read_flag(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Reads the signals of all processes, and returns the metrics of the step without them."""
        metrics = dict(metrics)
        self.signal = int(metrics.pop(STOP, 0)) or self.signal
        return metrics

    def sync(self) -> None:
        """Exchanges the signals since the last step, after which no metrics carry them."""
        if self._sharding is not None:
            self.signal = max_over_hosts(self._noted) or self.signal

    def _note(self, number: int, frame: object) -> None:
        self._noted = number
        if self._sharding is None:
            self.signal = number
        signal.signal(number, self._previous[number])
        print("stopping once this step is saved; a second time: at once", file=sys.stderr, flush=True)


def with_stop_flag(step: Step) -> Step:
    """Returns the same update, whose metrics pass on the flag of `StopRequest.attach_flag`."""

    def flagged_step(
        state: Any, teacher_variables: Tree, batch: Batch, weights: Mapping[str, jax.Array]
    ) -> Any:
        batch = dict(batch)
        stop = batch.pop(STOP, None)
        state, metrics = step(state, teacher_variables, batch, weights)
        return state, metrics if stop is None else {**metrics, STOP: stop.max()}

    return flagged_step
