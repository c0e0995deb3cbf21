"""The loop around the compiled step: batches, reports, validations and checkpoints."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.data.batches import iterate_eval_batches, iterate_train_batches
from fairkd_jax.engine.eval_step import evaluate_members
from fairkd_jax.engine.sharding import make_batch_sharding, to_global
from fairkd_jax.engine.state import TrainState
from fairkd_jax.objectives import Metrics
from fairkd_jax.progress import Progress
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.training.program import Program
from fairkd_jax.training.start import restore_newest
from fairkd_jax.training.stop import Stopped, StopRequest
from fairkd_jax.training.student_log import Diverged, StudentLog
from fairkd_jax.training.writers import Writer
from fairkd_jax.types import Batch, Tree

# Measures of a validation and their short names. For several students there is no room for the disparity.
_VALIDATED = {
    "accuracy": "accuracy",
    "mean_abs_disparity": "disparity",
    "corrected_mean_abs_disparity": "corrected",
}
PROGRESS_KEYS = ("loss", "accuracy", "advantage", "temperature")  # metrics.jsonl holds all other metrics


def read_from_device(tree: Tree) -> Tree:
    """Reads arrays from the device: the single place where the loop waits for numbers."""
    return jax.device_get(tree)


class _Loop:
    """The state of the loop, with the metrics that are not yet reported."""

    def __init__(self, program: Program, state: TrainState, step: int, logs: Sequence[StudentLog]) -> None:
        self.program, self.state, self.step, self.logs = program, state, step, logs
        self.progress = Progress(
            program.name,
            step=step,
            total_steps=program.total_steps,
            batch_size=program.batch_size,
            steps_per_epoch=len(program.train) / program.batch_size,
        )
        self.stop = StopRequest(program.mesh)
        self._pending: tuple[int, Metrics] | None = None
        self._waited, self._reported = 0.0, time.monotonic()

    def wait_for_batch(self, batches: Iterator[Batch]) -> Batch:
        """Takes the next batch, and measures the time that the loop waits for it."""
        start = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - start
        return batch

    def advance(self, batch: Batch) -> None:
        """Dispatches a step, and reads the metrics of the step before."""
        program = self.program
        batch = self.stop.attach_flag(batch, program.batch_size)
        self.state, metrics = program.step(self.state, program.teacher_variables, batch, program.weights)
        self.step += 1
        self.flush_metrics()
        self._pending = (self.step, metrics)
        self.progress.advance(self.step)

    def flush_metrics(self) -> None:
        """Reads and checks the metrics that are still on the device, and reports when due."""
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        metrics = self.stop.read_flag(read_from_device(pending))
        for i, log in self._learning_logs():
            with self._stop_if_diverged(log):
                log.add(step, self._take_member(metrics, i))
        if step % self.program.log_every and step != self.program.total_steps:
            return
        now = time.monotonic()
        share = self._waited / max(now - self._reported, 1e-9)
        self._waited, self._reported = 0.0, now
        rate = self.progress.measure_rate(step)
        common = {"images_per_second": rate, "data_wait_share": share}
        found = []
        for i, log in self._learning_logs():
            learning_rate = float(self.program.learning_rates[i, step - 1])
            found.append(log.report(step, {"learning_rate": learning_rate, **common}))
        keys = [key for key in found[0] if key.endswith(PROGRESS_KEYS)]
        shown = {key: float(np.mean([means[key] for means in found])) for key in keys}
        self.progress.report(step, rate, shown)

    def validate(self) -> None:
        """Validates, and saves each student that is the best so far."""
        self.flush_metrics()
        program = self.program
        batches = iterate_eval_batches(
            program.validation,
            batch_size=program.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        variables = self.state.student_variables()
        scores = evaluate_members(program.eval_step, variables, batches, program.mesh, program.members)
        found, num_best, warnings = [], 0, dict[int, Sequence[str]]()
        for i, log in self._learning_logs():
            with self._stop_if_diverged(log):
                numbers, sentences, is_best = log.record_validation(self.step, scores[i])
                if is_best:
                    student = program.part(self.state, i).student_variables()
                    log.checkpoints.save_best(self.step, student, numbers)
                    num_best += 1
                found.append(numbers)
                if self.step >= 2 * program.validate_every:  # a student that has just begun predicts little
                    warnings[i] = sentences
        if found:
            self._report_validation(found, num_best, warnings)
        if num_best:
            # A run that stops now and resumes with another schedule must not keep a `best` beyond `last`.
            self.save()

    def save(self) -> None:
        """Saves the states, once their losses and parameters are known to be finite."""
        self.flush_metrics()
        for i, log in self._learning_logs():
            log.save(self.step, self.program.part(self.state, i))

    def warn_if_no_best(self) -> None:
        """Prints a warning where no checkpoint kept within the bound."""
        for i, log in self._learning_logs():
            if text := log.warn_if_no_best():
                self.progress.note(f"{self._make_prefix(i)}{text}")

    def _take_member(self, metrics: Metrics, i: int) -> Any:
        return jax.tree.map(lambda x: x[i], metrics) if self.program.members else metrics

    def _learning_logs(self) -> list[tuple[int, StudentLog]]:
        """Returns the place and the log of each student that has not diverged.

        Raises:
          Diverged: All students have diverged.
        """
        found = [(i, log) for i, log in enumerate(self.logs) if not log.diverged]
        if not found:
            raise Diverged(f"all {len(self.logs)} members of the population diverged")
        return found

    @contextlib.contextmanager
    def _stop_if_diverged(self, log: StudentLog) -> Iterator[None]:
        """Stops only the member that diverges, in a population."""
        try:
            yield
        except Diverged as error:
            if not self.program.members:
                raise
            log.give_up(str(error))
            self.progress.note(f"{log.name} diverged and learns no further: {error}")

    def _make_prefix(self, i: int) -> str:
        return f"{self.logs[i].name}: " if self.program.members else ""

    def _report_validation(
        self, numbers: Sequence[Mapping[str, float]], num_best: int, warnings: Mapping[int, Sequence[str]]
    ) -> None:
        """Prints one line on a validation, and the warnings of each student."""
        keys = {key: word for key, word in _VALIDATED.items() if word != "disparity" or len(numbers) == 1}
        shown = ", ".join(
            f"{word} {_format_range([own[key] for own in numbers])}" for key, word in keys.items()
        )
        best = f" ({num_best} best)" if num_best and self.program.members else " (best)" if num_best else ""
        self.progress.note(f"val at {self.step}: {shown}{best}")
        for i, sentences in warnings.items():
            for sentence in sentences:
                self.progress.note(f"{self._make_prefix(i)}warning: {sentence}")


def _format_range(values: Sequence[float]) -> str:
    """Formats a number, or the least and the largest of several."""
    if len(values) == 1:
        return format(values[0], ".3f")
    return f"{min(values):.2f} to {max(values):.2f}"


def fit(
    program: Program, workdirs: Sequence[Path], make_writers: Callable[[Path, int], Sequence[Writer]]
) -> None:
    """Trains to the end, from the last checkpoints where there are some.

    Args:
      program: The compiled functions and the lengths of the training.
      workdirs: The folder of each student.
      make_writers: Function `(workdir, step) -> writers` for a run that goes on from that step.

    Raises:
      Diverged: A loss or a gradient of every student is not finite; the last checkpoint is kept.
      Stopped: SIGINT or SIGTERM arrived; the state was saved.
    """
    with contextlib.ExitStack() as stack:
        # A population that is killed while it saves has saved some of its members: it needs the step before.
        keep = max(program.keep, 2 if program.members else 1)
        options: dict[str, Any] = {"keep": keep, "is_kept": program.is_kept, "training": True}
        checkpoints = [
            stack.enter_context(contextlib.closing(Checkpoints(folder, **options))) for folder in workdirs
        ]
        state, step = restore_newest(checkpoints, program.abstract_state, program.join)
        logs = [
            StudentLog(folder, own, make_writers(folder, step), program.train.counts, program.max_disparity)
            for folder, own in zip(workdirs, checkpoints, strict=True)
        ]
        for log in logs:
            stack.callback(log.close_writers)
            log.resume(step)
        _run_loop(_Loop(program, program.init() if state is None else state, step, logs))


def _run_loop(loop: _Loop) -> None:
    """Runs the loop while the checkpoints are open."""
    program = loop.program
    if loop.step:
        loop.progress.note(f"going on from step {loop.step} of {program.total_steps}")
    batches = iterate_train_batches(
        program.train,
        batch_size=program.batch_size,
        seed=program.data_seed,
        start_step=loop.step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        with_images=not program.images_on_device,
        balanced=program.balanced,
        place=functools.partial(to_global, sharding=make_batch_sharding(program.mesh)),
    )
    try:
        with loop.stop as stop:
            if not program.total_steps:  # a pretrained model that is taken as it is
                loop.validate()
                loop.save()
            while loop.step < program.total_steps and stop.signal is None:
                loop.advance(loop.wait_for_batch(batches))
                last = loop.step == program.total_steps
                if last or loop.step % program.validate_every < 1:
                    loop.validate()
                if last or loop.step % program.checkpoint_every == 0 or program.is_kept(loop.step):
                    loop.save()
                if last:
                    loop.warn_if_no_best()
                    stop.sync()
            if stop.signal is not None:
                loop.save()
                raise Stopped(loop.step, program.total_steps, stop.signal)
    except Diverged as error:
        kept = loop.logs[0].checkpoints.last_step()
        saved = f"the checkpoint of step {kept} is kept" if kept else "there was no checkpoint before it"
        advice = "a lower learning rate or a smaller weight may help, with another --workdir"
        raise Diverged(f"{error}; {saved}; {advice}") from None
    finally:
        loop.progress.close()
