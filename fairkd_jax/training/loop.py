"""The loop around the compiled step: batches in, numbers out, checkpoints in between."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.data.batches import eval_batches, train_batches
from fairkd_jax.data.pipeline import Split
from fairkd_jax.objectives import Metrics
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.evaluation import EvalStep, evaluate_members
from fairkd_jax.training.member import Diverged, Member
from fairkd_jax.training.sharding import over_batch, to_global
from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import Step
from fairkd_jax.training.stop import Stopped, StopRequest
from fairkd_jax.training.writers import Progress, Writer
from fairkd_jax.types import Batch, Tree

SHOWN = ("loss", "accuracy", "advantage", "temperature")  # in a progress line; the rest is in metrics.jsonl


@dataclass(frozen=True)
class Program:
    """Everything that `fit` runs, for one student or for a population.

    Attributes:
      name: what stands in front of the progress lines.
      mesh: the devices.
      members: how many students of a population; 0 for a lone one, whose arrays have no axis for that.
      init: makes the first state, on the mesh.
      step: the compiled update.
      images_on_device: whether the step holds the training images, so that a batch brings its indices alone.
      eval_step: the compiled scoring of a batch.
      abstract_state: shapes, dtypes and shardings of the state of one student, as it is saved.
      part: `(state, i) -> state` of the i-th student.
      join: `states -> state` of them all.
      teacher_variables: the frozen teacher's, on the mesh; empty without one.
      weights: float32 by objective, on the mesh.
      learning_rates: float [students, total_steps], to be logged.
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
    members: int
    init: Callable[[], TrainState]
    step: Step
    images_on_device: bool
    eval_step: EvalStep
    abstract_state: TrainState
    part: Callable[[TrainState, int], TrainState]
    join: Callable[[Sequence[TrainState]], TrainState]
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


def read_from_device(tree: Tree) -> Tree:
    """The one place where the loop waits for numbers from the device."""
    return jax.device_get(tree)


class _Run:
    """One run of the loop: the state, and what was measured but not yet reported."""

    def __init__(self, program: Program, state: TrainState, step: int, members: Sequence[Member]) -> None:
        self.program, self.state, self.step, self.members = program, state, step, members
        self.progress = Progress(
            program.name, step=step, total_steps=program.total_steps, batch_size=program.batch_size
        )
        self.stop = StopRequest(program.mesh)
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
        batch = self.stop.tell(batch, program.batch_size)
        self.state, metrics = program.step(self.state, program.teacher_variables, batch, program.weights)
        self.step += 1
        self.settle()
        self._pending = (self.step, metrics)
        self.progress.advance(self.step)

    def settle(self) -> None:
        """Reads the metrics that are still on the device, checks them, and reports when it is time to."""
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        metrics = self.stop.hear(read_from_device(pending))
        for i, member in self._learning():
            with self._giving_up(member):
                member.add(step, self._own(metrics, i))
        if step % self.program.log_every and step != self.program.total_steps:
            return
        now = time.monotonic()
        share = self._waited / max(now - self._reported, 1e-9)
        self._waited, self._reported = 0.0, now
        rate = self.progress.rate(step)
        common = {"images_per_second": rate, "data_wait_share": share}
        found = []
        for i, member in self._learning():
            learning_rate = float(self.program.learning_rates[i, step - 1])
            found.append(member.report(step, {"learning_rate": learning_rate, **common}))
        shown = {key: float(np.mean([one[key] for one in found])) for key in found[0] if key.endswith(SHOWN)}
        self.progress.report(step, rate, shown)

    def validate(self) -> None:
        """Validates, and keeps each student that is the best so far."""
        self.settle()
        program = self.program
        batches = eval_batches(
            program.validation,
            batch_size=program.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        variables = self.state.student_variables()
        scores = evaluate_members(program.eval_step, variables, batches, program.mesh, program.members)
        improved = False
        for i, member in self._learning():
            with self._giving_up(member):
                numbers, raised, is_best = member.validated(self.step, scores[i])
                if is_best:
                    student = program.part(self.state, i).student_variables()
                    member.checkpoints.save_best(self.step, student, numbers)
                    improved = True
                self._tell(i, numbers, raised if self.step >= 2 * program.validate_every else [], is_best)
        if improved:
            # Else a run that is stopped, and goes on with another schedule, could keep a `best` it never had.
            self.save()

    def save(self) -> None:
        """Saves the states to go on from, once their losses and parameters are known to be finite."""
        self.settle()
        for i, member in self._learning():
            member.save(self.step, self.program.part(self.state, i))

    def close_best(self) -> None:
        """Says so where no checkpoint kept within the bound."""
        for i, member in self._learning():
            if text := member.beyond_bound():
                self.progress.note(f"{self._called(i)}{text}")

    def _own(self, metrics: Metrics, i: int) -> Any:
        return jax.tree.map(lambda x: x[i], metrics) if self.program.members else metrics

    def _learning(self) -> list[tuple[int, Member]]:
        """The members that have not diverged.

        Raises:
          Diverged: all have.
        """
        found = [(i, member) for i, member in enumerate(self.members) if not member.diverged]
        if not found:
            raise Diverged(f"all {len(self.members)} members of the population diverged")
        return found

    @contextlib.contextmanager
    def _giving_up(self, member: Member) -> Iterator[None]:
        """In a population, a member that diverges does not stop the others."""
        try:
            yield
        except Diverged as error:
            if not self.program.members:
                raise
            member.give_up(str(error))
            self.progress.note(f"{member.name} diverged and learns no further: {error}")

    def _called(self, i: int) -> str:
        return f"{self.members[i].name}: " if self.program.members else ""

    def _tell(self, i: int, numbers: Mapping[str, float], raised: Sequence[str], is_best: bool) -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        best = "  (best so far)" if is_best else ""
        self.progress.note(f"{self._called(i)}validation at step {self.step}  {shown}{best}")
        for sentence in raised:  # but not of a student that has just begun, which predicts little
            self.progress.note(f"{self._called(i)}alarm: {sentence}")


def fit(
    program: Program, workdirs: Sequence[Path], make_writers: Callable[[Path, int], Sequence[Writer]]
) -> None:
    """Trains, from the last checkpoints where there are some.

    Args:
      program: what to run.
      workdirs: the folder of each student.
      make_writers: `(workdir, step) -> writers` of a run that goes on from that step.

    Raises:
      Diverged: a loss or gradient is not finite, of a lone student or of every member of a population; the
        last checkpoint is kept.
      Stopped: SIGINT or SIGTERM arrived; the state was saved.
    """
    with contextlib.ExitStack() as stack:
        # A population that is killed while it saves has saved some of its members: it needs the step before.
        keep = 2 if program.members else 1
        checkpoints = [
            stack.enter_context(contextlib.closing(Checkpoints(folder, keep=keep, training=True)))
            for folder in workdirs
        ]
        step = common_step([own.steps() for own in checkpoints])
        members = [
            Member(folder, own, make_writers(folder, step), program.train.counts, program.max_disparity)
            for folder, own in zip(workdirs, checkpoints, strict=True)
        ]
        for member in members:
            stack.callback(member.close_writers)
        _fit(_Run(program, _start(program, checkpoints, step), step, members))


def _start(program: Program, checkpoints: Sequence[Checkpoints], step: int) -> TrainState:
    """The state of a step; those of the members that it is made of are not kept."""
    if not step:
        return program.init()
    return program.join([own.restore_state(program.abstract_state, step) for own in checkpoints])


def common_step(steps: Sequence[set[int]]) -> int:
    """The newest step that all have saved; 0 where there is none."""
    return max(set.intersection(*steps), default=0)


def _fit(run: _Run) -> None:
    """What `fit` does while the checkpoints are open."""
    program = run.program
    if run.step:
        run.progress.note(f"going on from step {run.step} of {program.total_steps}")
    batches = train_batches(
        program.train,
        batch_size=program.batch_size,
        seed=program.data_seed,
        start_step=run.step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        with_images=not program.images_on_device,
        balanced=program.balanced,
        place=functools.partial(to_global, sharding=over_batch(program.mesh)),
    )
    try:
        with run.stop as stop:
            while run.step < program.total_steps and stop.signal is None:
                run.advance(run.wait_for(batches))
                last = run.step == program.total_steps
                if last or run.step % program.validate_every < 1:
                    run.validate()
                if last or run.step % program.checkpoint_every == 0:
                    run.save()
                if last:
                    run.close_best()
                    stop.ask_all()
            if stop.signal is not None:
                run.save()
                raise Stopped(run.step, program.total_steps, stop.signal)
    except Diverged as error:
        kept = run.members[0].checkpoints.last_step()
        saved = f"the checkpoint of step {kept} is kept" if kept else "there was no checkpoint before it"
        advice = "a lower learning rate or a smaller weight may help, with another --workdir"
        raise Diverged(f"{error}; {saved}; {advice}") from None
    finally:
        run.progress.close()
