"""The loop around the compiled step: batches in, numbers out, checkpoints in between."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.data.pipeline import Split, eval_batches, train_batches
from fairkd_jax.fairness import alarms, summarize
from fairkd_jax.objectives import Metrics
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.evaluation import EvalStep, evaluate
from fairkd_jax.training.sharding import over_batch, to_global
from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import COUNTS, Step
from fairkd_jax.training.stop import Stopped, StopRequest
from fairkd_jax.training.writers import Progress, Writer
from fairkd_jax.types import Batch, Tree

SHOWN = ("loss", "accuracy", "advantage", "temperature")  # in a progress line; the rest is in metrics.jsonl
# What a validation tells and the best checkpoint is chosen by.
VALIDATION_KEYS = ("accuracy", "macro_recall", "mean_abs_disparity", "corrected_mean_abs_disparity")


class Diverged(RuntimeError):
    """A loss, a gradient or a parameter is no longer finite."""

    exit_code = 1


@dataclass(frozen=True)
class Program:
    """Everything that `fit` runs.

    Attributes:
      name: what stands in front of the progress lines.
      mesh: the devices.
      init: makes the first state, on the mesh.
      step: the compiled update.
      images_on_device: whether the step holds the training images, so that a batch brings its indices alone.
      eval_step: the compiled scoring of a batch.
      abstract_state: shapes, dtypes and shardings of the state.
      teacher_variables: the frozen teacher's, on the mesh; empty without one.
      weights: float32 scalars by objective, on the mesh.
      learning_rates: float [total_steps], to be logged.
      train: the split to learn from.
      validation: the split that the best checkpoint is chosen by.
      batch_size: over all devices.
      balanced: whether the groups of a class are drawn equally often.
      data_seed: of the order.
      total_steps: the length of the training.
      log_every: steps between reports.
      validate_every: steps between validations, not necessarily whole.
      checkpoint_every: steps between checkpoints.
      max_disparity: bound on the corrected disparity of the best checkpoint, or None.
    """

    name: str
    mesh: jax.sharding.Mesh
    init: Callable[[], TrainState]
    step: Step
    images_on_device: bool
    eval_step: EvalStep
    abstract_state: TrainState
    teacher_variables: Tree
    weights: Mapping[str, jax.Array]
    learning_rates: np.ndarray
    train: Split
    validation: Split
    batch_size: int
    balanced: bool
    data_seed: int
    total_steps: int
    log_every: int
    validate_every: float
    checkpoint_every: int
    max_disparity: float | None


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
        found = signs(self._counts, self._training_counts)
        means |= {f"student/{key}": value for key, value in found.items()}
        self._sums, self._counts = {}, 0
        return means


def signs(counts: np.ndarray, training_counts: np.ndarray) -> dict[str, float]:
    """What the alarms are read from, and how many are raised, as numbers; see `fairness.alarms`."""
    found = alarms(counts, training_counts)
    raised = found.pop("raised")
    return {key: float(value) for key, value in found.items()} | {"alarms": float(len(raised))}


def read_from_device(tree: Tree) -> Tree:
    """The one place where the loop waits for numbers from the device."""
    return jax.device_get(tree)


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


def validate(program: Program, state: TrainState) -> tuple[dict[str, float], list[str]]:
    """Scores the student on the validation split, and says what is alarming there."""
    batches = eval_batches(
        program.validation,
        batch_size=program.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    scores = evaluate(program.eval_step, state.student_variables(), batches, program.mesh)
    summary = summarize(scores.counts, draws=0)
    numbers = {key: summary[key] for key in VALIDATION_KEYS}
    numbers["cross_entropy"] = scores.cross_entropy / max(1, len(program.validation))
    return numbers, alarms(scores.counts, program.train.counts)["raised"]


class _Run:
    """One run of the loop: the state, and what was measured but not yet reported."""

    def __init__(
        self,
        program: Program,
        state: TrainState,
        step: int,
        checkpoints: Checkpoints,
        writers: Sequence[Writer],
    ) -> None:
        self.program, self.state, self.step = program, state, step
        self.checkpoints, self.writers = checkpoints, writers
        self.progress = Progress(
            program.name, step=step, total_steps=program.total_steps, batch_size=program.batch_size
        )
        self._meter = Meter(program.train.counts)
        self._pending: tuple[int, Metrics] | None = None
        self._waited, self._reported = 0.0, time.monotonic()

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """Takes the next batch, and notes how long it was not there yet."""
        start = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - start
        return batch

    def advance(self, batch: Batch) -> None:
        """Dispatches a step, and reads the metrics of the one before it."""
        program = self.program
        self.state, metrics = program.step(self.state, program.teacher_variables, batch, program.weights)
        self.step += 1
        self.settle()
        self._pending = (self.step, metrics)
        self.progress.advance(self.step)

    def settle(self) -> None:
        """Reads the metrics that are still on the device, checks them, and reports when it is time to."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        self._meter.add(step, read_from_device(metrics))
        if step % self.program.log_every and step != self.program.total_steps:
            return
        means = self._meter.means()
        shown = {k: v for k, v in means.items() if k.endswith(SHOWN)}
        rate = self.progress.report(step, shown)
        learning_rate = float(self.program.learning_rates[step - 1])
        now = time.monotonic()
        share = self._waited / max(now - self._reported, 1e-9)
        self._waited, self._reported = 0.0, now
        numbers = {"learning_rate": learning_rate, "images_per_second": rate, "data_wait_share": share}
        self._write(step, means | numbers)

    def validate(self) -> None:
        """Validates, and keeps the student if it is the best so far."""
        self.settle()
        numbers, raised = validate(self.program, self.state)
        if not math.isfinite(numbers["cross_entropy"]):
            raise Diverged(f"the validation's cross-entropy is not finite at step {self.step}")
        best = self.checkpoints.best_scores()
        bound = self.program.max_disparity
        is_best = best is None or rank(numbers, bound) > rank(best, bound)
        if is_best:
            self.checkpoints.save_best(self.step, self.state.student_variables(), numbers)
            # Else a run that is stopped, and goes on with another schedule, could keep a `best` it never had.
            self.save()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self.progress.note(f"validation at step {self.step}  {shown}{'  (best so far)' if is_best else ''}")
        if self.step > self.program.validate_every:  # a student that has just begun predicts little
            for sentence in raised:
                self.progress.note(f"alarm: {sentence}")
        numbers["alarms"] = float(len(raised))
        self._write(self.step, {f"validation/{name}": value for name, value in numbers.items()})

    def save(self) -> None:
        """Saves the state to go on from, once its losses and parameters are known to be finite."""
        self.settle()
        self.checkpoints.save_last(self.step, self.state, self.state.student_variables())

    def close_best(self) -> None:
        """Says so where no checkpoint kept within the bound."""
        best, bound = self.checkpoints.best_scores(), self.program.max_disparity
        if best is not None and bound is not None and rank(best, bound)[0] == 0:
            disparity = best["corrected_mean_abs_disparity"]
            self.progress.note(
                f"no checkpoint kept within {bound:g}; the best has a disparity of {disparity:.4g}"
            )

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write_scalars(step, scalars)


def fit(program: Program, workdir: Path, make_writers: Callable[[int], Sequence[Writer]]) -> None:
    """Trains, from the last checkpoint where there is one.

    Args:
      program: what to run.
      workdir: the run's folder.
      make_writers: `step -> writers` of a run that goes on from that step.

    Raises:
      Diverged: a loss or gradient is not finite; the last checkpoint is kept.
      Stopped: SIGINT or SIGTERM arrived; the state was saved.
    """
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        _fit(program, checkpoints, make_writers)


def _fit(program: Program, checkpoints: Checkpoints, make_writers: Callable[[int], Sequence[Writer]]) -> None:
    """What `fit` does while the checkpoints are open."""
    step = checkpoints.last_step() or 0
    state = checkpoints.restore_state(program.abstract_state) if step else program.init()
    run = _Run(program, state, step, checkpoints, make_writers(step))
    if step:
        run.progress.note(f"going on from step {step} of {program.total_steps}")
    batches = train_batches(
        program.train,
        batch_size=program.batch_size,
        seed=program.data_seed,
        start_step=step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        with_images=not program.images_on_device,
        balanced=program.balanced,
        place=functools.partial(to_global, sharding=over_batch(program.mesh)),
    )
    try:
        with StopRequest() as stop:
            while run.step < program.total_steps and stop.signal is None:
                run.advance(run.wait_for(batches))
                last = run.step == program.total_steps
                if last or run.step % program.validate_every < 1:
                    run.validate()
                if last or run.step % program.checkpoint_every == 0:
                    run.save()
                if last:
                    run.close_best()
            if stop.signal is not None:
                run.save()
                raise Stopped(run.step, program.total_steps, stop.signal)
    except Diverged as error:
        kept = checkpoints.last_step()
        saved = f"the checkpoint of step {kept} is kept" if kept else "there was no checkpoint before it"
        advice = "a lower learning rate or a smaller weight may help, with another --workdir"
        raise Diverged(f"{error}; {saved}; {advice}") from None
    finally:
        run.progress.close()
        for writer in run.writers:
            writer.close()
