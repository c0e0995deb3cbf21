"""One student of a run: its folder, what it has measured, and which of its checkpoints is the best."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.fairness import alarms, summarize
from fairkd_jax.files import write_text
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.evaluation import Scores
from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import COUNTS
from fairkd_jax.training.writers import Writer

# What a validation tells and the best checkpoint is chosen by.
VALIDATION_KEYS = ("accuracy", "macro_recall", "mean_abs_disparity", "corrected_mean_abs_disparity")
# Left in the folder of a member of a population that diverged, so that it is not tried again.
DIVERGED_FILE = "diverged.txt"


class Diverged(RuntimeError):
    """A loss, a gradient or a parameter is no longer finite."""

    exit_code = 1


class Meter:
    """Adds up metrics on the host until they are reported."""

    def __init__(self, training_counts: np.ndarray) -> None:
        """Starts empty; the counts [G, C] of the training images say which way their classes lean."""
        self._training_counts = training_counts
        self._sums: dict[str, tuple[float, float]] = {}
        self._counts: Any = 0

    def add(self, step: int, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds the (sum, weight) pairs of one step.

        Raises:
          Diverged: some are not finite; names the step and the terms.
        """
        metrics = dict(metrics)
        counts, _ = metrics.pop(COUNTS)
        self._counts = self._counts + np.asarray(counts, np.int64)
        bad = [name for name, (total, _) in metrics.items() if not math.isfinite(total)]
        if bad:
            # A term makes the sum and the gradients follow it: name the terms first.
            bad.sort(key=lambda name: (not name.endswith("/loss"), name))
            raise Diverged(f"{', '.join(bad)} not finite at step {step}")
        for name, (total, weight) in metrics.items():
            old_total, old_weight = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (old_total + float(total), old_weight + float(weight))

    def means(self) -> dict[str, float]:
        """The means since the last call, and the signs of collapse and over-correction in the counts.

        A metric that nothing contributed to is left out.
        """
        means = {name: total / weight for name, (total, weight) in self._sums.items() if weight > 0}
        found = alarms(self._counts, self._training_counts)
        found["alarms"] = len(found.pop("raised"))
        means |= {f"student/{key}": float(value) for key, value in found.items()}
        self._sums, self._counts = {}, 0
        return means


def rank(scores: Mapping[str, float], max_disparity: float | None) -> tuple[float, float]:
    """Orders checkpoints; the largest is the best.

    Without a bound that is the most accurate one. With one, it is the most accurate of those whose corrected
    mean absolute disparity is within it, and before any is, the one of least disparity.
    """
    if max_disparity is None:
        return (1.0, scores["accuracy"])
    disparity = scores["corrected_mean_abs_disparity"]
    if disparity is None or math.isnan(disparity):
        return (0.0, -math.inf)
    return (1.0, scores["accuracy"]) if disparity <= max_disparity else (0.0, -disparity)


class Member:
    """A student in the loop: the only one, or one of a population.

    Attributes:
      name: its folder's.
      checkpoints: its own.
      diverged: why it learns no further; empty while it does.
    """

    def __init__(
        self,
        workdir: Path,
        checkpoints: Checkpoints,
        writers: Sequence[Writer],
        training_counts: np.ndarray,
        max_disparity: float | None,
    ) -> None:
        """Takes its folder, what is open in it, and what the best checkpoint is bound by."""
        self.name, self.checkpoints, self.diverged = workdir.name, checkpoints, ""
        self._workdir, self._writers = workdir, writers
        self._training_counts, self._bound = training_counts, max_disparity
        self._meter = Meter(training_counts)

    def add(self, step: int, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds the metrics of a step; raises `Diverged` as `Meter.add` does."""
        self._meter.add(step, metrics)

    def report(self, step: int, more: Mapping[str, float]) -> dict[str, float]:
        """Writes the means since the last report, and more numbers beside them; returns the means."""
        means = self._meter.means()
        self._write(step, {**means, **more})
        return means

    def validated(self, step: int, scores: Scores) -> tuple[dict[str, float], list[str], bool]:
        """Derives what a validation tells, and writes it.

        Returns:
          The numbers, what is alarming, and whether this is the best checkpoint so far.

        Raises:
          Diverged: the cross-entropy is not finite.
        """
        summary = summarize(scores.counts, draws=0)
        numbers = {key: summary[key] for key in VALIDATION_KEYS}
        numbers["cross_entropy"] = scores.cross_entropy / max(1, summary["num_examples"])
        if not math.isfinite(numbers["cross_entropy"]):
            raise Diverged(f"the validation's cross-entropy is not finite at step {step}")
        raised = alarms(scores.counts, self._training_counts)["raised"]
        written = numbers | {"alarms": float(len(raised))}
        self._write(step, {f"validation/{name}": value for name, value in written.items()})
        best = self.checkpoints.best_scores()
        return numbers, raised, best is None or rank(numbers, self._bound) > rank(best, self._bound)

    def save(self, step: int, state: TrainState) -> None:
        """Saves the state to go on from."""
        self.checkpoints.save_last(step, state, state.student_variables())

    def beyond_bound(self) -> str:
        """Says so where no checkpoint kept within the bound."""
        best = self.checkpoints.best_scores()
        if best is None or self._bound is None or rank(best, self._bound)[0]:
            return ""
        disparity = best["corrected_mean_abs_disparity"]
        return f"no checkpoint kept within {self._bound:g}; the best has a disparity of {disparity:.4g}"

    def give_up(self, reason: str) -> None:
        """Learns no further, in a population whose others do."""
        self.diverged = reason
        if not jax.process_index():
            write_text(self._workdir / DIVERGED_FILE, f"{reason}\n")

    def close_writers(self) -> None:
        """Ends its lines."""
        for writer in self._writers:
            writer.close()

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.write_scalars(step, scalars)
