"""The log of one student: its reports, its validations, and the choice of its best checkpoint."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.engine.eval_step import Scores
from fairkd_jax.engine.state import TrainState
from fairkd_jax.engine.train_step import COUNTS
from fairkd_jax.errors import reading
from fairkd_jax.fairness import diagnose, summarize
from fairkd_jax.files import write_text
from fairkd_jax.runs.checkpoint import ADVICE, Checkpoints
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.training.writers import Writer

# Measures of a validation; they also decide which checkpoint is the best.
VALIDATION_KEYS = ("accuracy", "macro_recall", "mean_abs_disparity", "corrected_mean_abs_disparity")


class Diverged(RuntimeError):
    """A loss, a gradient or a parameter is no longer finite."""

    exit_code = 1


class Meter:
    """A sum of metrics on the host, until the next report."""

    def __init__(self, training_counts: np.ndarray) -> None:
        """Starts empty.

        Args:
          training_counts: Training images by group and class, int [G, C]; they say which group a class has
            most.
        """
        self._training_counts = training_counts
        self._sums: dict[str, tuple[float, float]] = {}
        self._counts: np.ndarray | None = None

    def add(self, step: int, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds the metrics of one step.

        Args:
          step: The step, for the message.
          metrics: Pairs (sum, weight) by name, on the host.

        Raises:
          Diverged: Some metrics are not finite; the message names the step and the metrics.
        """
        metrics = dict(metrics)
        counts, _ = metrics.pop(COUNTS)
        if self._counts is None:
            self._counts = np.zeros(np.shape(counts), np.int64)
        self._counts += counts
        bad = [name for name, (total, _) in metrics.items() if not math.isfinite(total)]
        if bad:
            # A single loss spoils the sum and the gradients as well: the message names the losses first.
            bad.sort(key=lambda name: (not name.endswith("/loss"), name))
            raise Diverged(f"{', '.join(bad)} not finite at step {step}")
        for name, (total, weight) in metrics.items():
            old_total, old_weight = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (old_total + float(total), old_weight + float(weight))

    def take_means(self) -> dict[str, float]:
        """Returns the means since the last call, with diagnostics of collapse and over-correction.

        A metric of weight 0 is left out.
        """
        means = {name: total / weight for name, (total, weight) in self._sums.items() if weight > 0}
        assert self._counts is not None
        found = diagnose(self._counts, self._training_counts)
        found["warnings"] = len(found["warnings"])
        means |= {f"student/{key}": float(value) for key, value in found.items()}
        self._sums, self._counts = {}, None
        return means

    def dump(self) -> dict[str, Any]:
        """Returns the sums, ready for JSON; nothing where nothing was added since the last means."""
        if self._counts is None:
            return {}
        places = np.flatnonzero(self._counts)  # with many classes nearly all counts are 0
        values = self._counts.ravel()[places]
        counts = {"shape": self._counts.shape, "places": places.tolist(), "values": values.tolist()}
        return {"sums": self._sums, "counts": counts}

    def load(self, content: Mapping[str, Any]) -> None:
        """Goes on from the sums that `dump` has returned."""
        sums, counts = content["sums"].items(), content["counts"]
        self._sums = {name: (float(total), float(weight)) for name, (total, weight) in sums}
        self._counts = np.zeros(counts["shape"], np.int64)
        self._counts.ravel()[counts["places"]] = counts["values"]


def rank(scores: Mapping[str, float], max_disparity: float | None) -> tuple[float, float]:
    """Ranks a checkpoint; the largest rank is the best.

    Without a bound, the most accurate checkpoint is the best. With a bound, the best one is the most accurate
    checkpoint whose corrected mean absolute disparity is within the bound. Before there is such a checkpoint,
    the best one has the least disparity.

    Args:
      scores: Measures of the validation.
      max_disparity: The bound, or None.
    """
    if max_disparity is None:
        return (1.0, scores["accuracy"])
    disparity = scores["corrected_mean_abs_disparity"]
    if disparity is None or math.isnan(disparity):
        return (0.0, -math.inf)
    return (1.0, scores["accuracy"]) if disparity <= max_disparity else (0.0, -disparity)


class StudentLog:
    """The log of a student in the loop: a single student, or a member of a population.

    Attributes:
      name: The name of the student's folder.
      checkpoints: The student's checkpoints.
      diverged: The reason why the student learns no further; empty while it learns.
    """

    def __init__(
        self,
        workdir: Path,
        checkpoints: Checkpoints,
        writers: Sequence[Writer],
        training_counts: np.ndarray,
        max_disparity: float | None,
    ) -> None:
        """Starts the log of a folder.

        Args:
          workdir: The student's folder.
          checkpoints: The open checkpoints of the folder.
          writers: The open writers of the folder.
          training_counts: Training images by group and class, int [G, C].
          max_disparity: Bound on the corrected disparity of the best checkpoint; None for no bound.
        """
        self.name, self.checkpoints, self.diverged = workdir.name, checkpoints, ""
        self._workdir, self._writers = workdir, writers
        self._training_counts, self._bound = training_counts, max_disparity
        self._meter = Meter(training_counts)

    def add(self, step: int, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds the metrics of a step.

        Args:
          step: The step.
          metrics: Pairs (sum, weight) by name, on the host.

        Raises:
          Diverged: Some metrics are not finite.
        """
        self._meter.add(step, metrics)

    def report(self, step: int, more: Mapping[str, float]) -> dict[str, float]:
        """Writes the means since the last report.

        Args:
          step: The step of the report.
          more: Further numbers to write, by name.

        Returns:
          The means by name, without the further numbers.
        """
        means = self._meter.take_means()
        self._write(step, {**means, **more})
        return means

    def record_validation(self, step: int, scores: Scores) -> tuple[dict[str, float], list[str], bool]:
        """Writes the measures of a validation.

        Args:
          step: The step of the validation.
          scores: The scores of the validation split.

        Returns:
          The measures, the warnings, and whether this checkpoint is the best so far.

        Raises:
          Diverged: The cross-entropy is not finite.
        """
        summary = summarize(scores.counts, num_resamples=0)
        numbers = {key: summary[key] for key in VALIDATION_KEYS}
        numbers["cross_entropy"] = scores.cross_entropy / max(1, summary["num_examples"])
        if not math.isfinite(numbers["cross_entropy"]):
            raise Diverged(f"the validation's cross-entropy is not finite at step {step}")
        warnings = diagnose(scores.counts, self._training_counts)["warnings"]
        written = numbers | {"warnings": float(len(warnings))}
        self._write(step, {f"validation/{name}": value for name, value in written.items()})
        best = self.checkpoints.best_scores()
        return numbers, warnings, best is None or rank(numbers, self._bound) > rank(best, self._bound)

    def save(self, step: int, state: TrainState) -> None:
        """Saves the state as the last checkpoint."""
        self.checkpoints.save_last(step, state, state.student_variables(), self._meter.dump())

    def resume(self, step: int) -> None:
        """Takes the sums of the metrics from the checkpoint of a step, so that the next means are complete.

        Args:
          step: The step from which the run goes on.

        Raises:
          UsageError: The checkpoint is damaged.
        """
        meter = self.checkpoints.read_meter(step)
        if meter:
            with reading(f"the meter of step {step} in {self._workdir}", ADVICE):
                self._meter.load(meter)

    def warn_if_no_best(self) -> str:
        """Returns a warning where no checkpoint kept within the bound; an empty text otherwise."""
        best = self.checkpoints.best_scores()
        if best is None or self._bound is None or rank(best, self._bound)[0]:
            return ""
        disparity = best["corrected_mean_abs_disparity"]
        return f"no checkpoint kept within {self._bound:g}; the best has a disparity of {disparity:.4g}"

    def give_up(self, reason: str) -> None:
        """Stops the learning of this member, while other members of the population go on."""
        self.diverged = reason
        if not jax.process_index():
            write_text(RunFolder(self._workdir).diverged, f"{reason}\n")

    def close_writers(self) -> None:
        """Closes all writers."""
        for writer in self._writers:
            writer.close()

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.write_scalars(step, scalars)
