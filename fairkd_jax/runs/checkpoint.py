"""Checkpoints of a run: `last`, from which a training resumes, and `best`, the student to use."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from fairkd_jax.digests import check_sums, write_sums
from fairkd_jax.errors import UsageError, reading, writing
from fairkd_jax.runs.checkpoint_arrays import (
    MisfitError,
    check_equal_arrays,
    describe_arrays,
    make_save_args,
)
from fairkd_jax.types import Tree
from fairkd_jax.user_paths import check_can_store

# Two managers: a single manager that kept the best checkpoint would delete the newest one.
_LAST, _BEST = "last", "best"
_ITEMS = {
    _LAST: {
        "state": ocp.StandardCheckpointHandler,
        "student": ocp.StandardCheckpointHandler,
        "meter": ocp.JsonCheckpointHandler,
    },
    _BEST: {"student": ocp.StandardCheckpointHandler, "scores": ocp.JsonCheckpointHandler},
}
_RESUME = "make room, and start the same command again to go on from the last checkpoint"
ADVICE = "it is damaged: delete it and train again, or choose another --workdir"


class _Retention:
    """The rule which `last` checkpoints stay: the newest ones, and those that are kept for good."""

    def __init__(self, number: int, is_kept: Callable[[int], bool]) -> None:
        """Takes the number of newest checkpoints, and whether a step is kept for good."""
        self._number, self._is_kept = number, is_kept

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns for each checkpoint whether it stays; Orbax calls this after each saving."""
        newest = sorted(own.step for own in checkpoints)[-self._number :]
        return [own.step in newest or self._is_kept(own.step) for own in checkpoints]


class Checkpoints:
    """The checkpoints in a run's folder.

    `last` holds the whole training state and the student; `best` holds the student and its scores. The
    student is a separate item, so that a reader needs neither objectives nor optimizers to load the student.
    Its variables are `params` and `batch_stats`, averaged where the state has an average.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 1,
        is_kept: Callable[[int], bool] = lambda step: False,
        training: bool = False,
    ) -> None:
        """Opens the checkpoints of a folder.

        Args:
          workdir: The run's folder.
          keep: Number of `last` checkpoints to keep.
          is_kept: Function `step -> whether the step's last checkpoint is kept for good`.
          training: Whether this process trains the run. Only such a process deletes incomplete checkpoints
            of a killed run: to a reader, they may belong to a process that is writing now.

        Raises:
          UsageError: The library would misread the path, or the folder is damaged.
        """
        check_can_store(workdir)
        options = {
            kind: ocp.CheckpointManagerOptions(
                preservation_policy=rule,
                create=True,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=training,
            )
            for kind, rule in (
                (_LAST, _Retention(keep, is_kept)),
                (_BEST, _Retention(1, lambda step: False)),
            )
        }
        self._folder = (workdir / "checkpoints").absolute()
        with reading(f"the folder {self._folder}", ADVICE):
            self._managers = {
                kind: ocp.CheckpointManager(
                    self._folder / kind,
                    options=options[kind],
                    # With handlers for the items, the metadata of an item can be read before the item.
                    item_handlers={item: handler() for item, handler in items.items()},
                )
                for kind, items in _ITEMS.items()
            }

    def last_step(self) -> int | None:
        """Returns the newest step of `last`; None without a checkpoint."""
        return self._managers[_LAST].latest_step()

    def steps(self) -> set[int]:
        """Returns all steps of `last`."""
        return set(self._managers[_LAST].all_steps())

    def best_step(self) -> int | None:
        """Returns the step of `best`; None without a checkpoint."""
        return self._managers[_BEST].latest_step()

    def best_scores(self) -> dict[str, Any] | None:
        """Reads the scores of `best`; None without a checkpoint.

        Raises:
          UsageError: The checkpoint is damaged.
        """
        step = self.best_step()
        if step is None:
            return None
        args = ocp.args.Composite(scores=ocp.args.JsonRestore())
        with self._guard_reading(_BEST, step, "scores"):
            return self._managers[_BEST].restore(step, args=args)["scores"]

    def save_last(self, step: int, state: Tree, student: Tree, meter: dict[str, Any]) -> None:
        """Saves a state as a `last` checkpoint, and deletes the oldest one beyond `keep`.

        Args:
          step: Step of the state; a saved step is not saved again.
          state: The training state, a pytree.
          student: The student's variables.
          meter: The sums of the metrics since the last report, ready for JSON.
        """
        if step in self.steps():
            return
        items = ocp.args.Composite(
            state=make_save_args(state),
            student=make_save_args(student),
            meter=ocp.args.JsonSave(meter),
        )
        self._save(_LAST, step, items)

    def delete_last(self, step: int) -> None:
        """Deletes a `last` checkpoint, if it is there."""
        if step in self.steps():
            self._managers[_LAST].delete(step)

    def save_best(self, step: int, student: Tree, scores: dict[str, Any]) -> None:
        """Saves a student as the `best` checkpoint, in place of the one before.

        Args:
          step: Step of the student; a saved step is not saved again.
          student: The student's variables.
          scores: The measures of the validation, ready for JSON.
        """
        if self.best_step() == step:
            return
        items = ocp.args.Composite(student=make_save_args(student), scores=ocp.args.JsonSave(scores))
        self._save(_BEST, step, items)

    def restore_state(self, target: Tree, step: int) -> Tree:
        """Reads a training state onto the shardings of `target`.

        Args:
          target: Tree of `ShapeDtypeStruct` with shardings, of the structure of the state.
          step: A step of `steps`.

        Returns:
          The state.

        Raises:
          UsageError: The stored state has another structure, shape or dtype, or is damaged.
        """
        return self._restore(_LAST, step, "state", target)

    def read_meter(self, step: int) -> dict[str, Any]:
        """Reads the sums of the metrics between the last report and a step.

        Args:
          step: A step of `steps`.

        Returns:
          The sums; empty for a checkpoint of an earlier version.

        Raises:
          UsageError: The checkpoint is damaged.
        """
        if not (self._folder / _LAST / str(step) / "meter").exists():
            return {}
        with self._guard_reading(_LAST, step, "meter"):
            args = ocp.args.Composite(meter=ocp.args.JsonRestore())
            return self._managers[_LAST].restore(step, args=args)["meter"]

    def restore_student(self, which: str, target: Tree) -> tuple[int, Tree]:
        """Reads a student.

        A checkpoint that a training replaces meanwhile is looked up again. Where the newest one is damaged,
        the one before is read, with a warning.

        Args:
          which: "best", "last" or the number of a step.
          target: Tree of `ShapeDtypeStruct` with shardings, of the structure of the variables.

        Returns:
          The step of the checkpoint, and the student's variables.

        Raises:
          UsageError: There is no such checkpoint; or the checkpoint is damaged, or has another structure,
            shape or dtype.
        """
        available = {kind: sorted(manager.all_steps()) for kind, manager in self._managers.items()}
        for kind, steps in available.items():
            if steps and which == kind:
                return self._restore_newest(kind, target)
            if which in map(str, steps):
                return int(which), self._restore(kind, int(which), "student", target)
        there = ", ".join(
            f"{kind} (step {', '.join(map(str, reversed(steps)))})"
            for kind, steps in available.items()
            if steps
        )
        there = f"--checkpoint can be {there}" if there else "train first, or choose another --workdir"
        raise UsageError(f"there is no checkpoint {which!r} in {self._folder}; {there}")

    def _restore_newest(self, kind: str, target: Tree) -> tuple[int, Tree]:
        """Reads the student of the newest checkpoint that can be read; see `restore_student`."""
        manager, failed, first = self._managers[kind], set[int](), None
        while left := sorted(set(manager.all_steps()) - failed):
            step = left[-1]
            try:
                restored = self._restore(kind, step, "student", target)
            except MisfitError:
                raise
            except UsageError as error:
                manager.reload()  # a training saves the next checkpoint before it deletes this one
                first = first or error
                failed.add(step)
                continue
            damaged = max(failed, default=0)
            if step < damaged:
                logging.warning("%s; step %d is used instead", first, step)
            return step, restored
        raise first or UsageError(f"there is no checkpoint in {self._folder / kind}; start the command again")

    def _save(self, kind: str, step: int, items: Any) -> None:
        """Saves a checkpoint, and then the hashes of its files in the first process.

        Raises:
          StorageError: The disk is full, or a permission is missing.
        """
        folder = self._folder / kind / str(step)
        with writing(f"save the checkpoint {folder}", _RESUME):
            self._managers[kind].save(step, args=items, force=True)
            if not jax.process_index():
                write_sums(folder)

    @contextlib.contextmanager
    def _guard_reading(self, kind: str, step: int, item: str) -> Iterator[None]:
        """Checks the hashes of an item, and turns the errors of its reading into a `UsageError`.

        Raises:
          UsageError: The checkpoint is damaged, or a training has replaced it.
        """
        folder, manager = self._folder / kind / str(step), self._managers[kind]
        try:
            with reading(f"the checkpoint in {folder}", ADVICE):
                check_sums(folder, ADVICE, below=item)
                yield
        except UsageError:
            manager.reload()
            steps = manager.all_steps()
            if steps and step not in steps:
                raise UsageError(
                    f"a training has replaced the checkpoint in {folder} meanwhile; start the command again"
                ) from None
            raise

    def _restore(self, kind: str, step: int, item: str, target: Tree) -> Tree:
        manager = self._managers[kind]
        with self._guard_reading(kind, step, item):
            stored = manager.item_metadata(step)[item]
            if stored is None:
                raise FileNotFoundError(f"no {item} in it")
            check_equal_arrays(describe_arrays(stored), describe_arrays(target), item)
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
            return manager.restore(step, args=args)[item]

    def close(self) -> None:
        """Waits until all checkpoints are written."""
        for manager in self._managers.values():
            manager.close()
