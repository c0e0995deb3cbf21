"""Checkpoints of a run: `last`, to go on from, and `best`, to use."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.types import Tree

# Two managers: one that kept the best of its checkpoints would throw the newest away.
_LAST, _BEST = "last", "best"
_ITEMS = {
    _LAST: {"state": ocp.StandardCheckpointHandler, "student": ocp.StandardCheckpointHandler},
    _BEST: {"student": ocp.StandardCheckpointHandler, "scores": ocp.JsonCheckpointHandler},
}
ADVICE = "it is damaged: delete it and train again, or choose another --workdir"


class Checkpoints:
    """The checkpoints in a run's folder.

    `last` holds the whole training state and the student; `best` the student alone with its scores. The
    student (`params` and `batch_stats`, averaged where an average is kept) is an item of its own, so that it
    can be used without rebuilding what trained it.
    """

    def __init__(self, workdir: Path, *, keep: int = 1, training: bool = False) -> None:
        """Opens the checkpoints of a folder.

        Args:
          workdir: the run's folder.
          keep: how many of `last` stay there.
          training: whether what a kill has left half-written goes: it may be another's who is writing now.
        """
        options = {
            kind: ocp.CheckpointManagerOptions(
                max_to_keep=number,
                create=True,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=training,
            )
            for kind, number in ((_LAST, keep), (_BEST, 1))
        }
        self._folder = (workdir / "checkpoints").absolute()
        with reading(f"the folder {self._folder}", ADVICE):
            self._managers = {
                kind: ocp.CheckpointManager(
                    self._folder / kind,
                    options=options[kind],
                    # Named here, so that what an item holds can be looked at before it is restored.
                    item_handlers={item: handler() for item, handler in items.items()},
                )
                for kind, items in _ITEMS.items()
            }

    def last_step(self) -> int | None:
        """The newest step to go on from."""
        return self._managers[_LAST].latest_step()

    def steps(self) -> set[int]:
        """The steps to go on from."""
        return set(self._managers[_LAST].all_steps())

    def best_step(self) -> int | None:
        """The step of the best checkpoint."""
        return self._managers[_BEST].latest_step()

    def best_scores(self) -> dict[str, Any] | None:
        """What the best checkpoint was saved with; None before the first one."""
        step = self.best_step()
        if step is None:
            return None
        args = ocp.args.Composite(scores=ocp.args.JsonRestore())
        with self._reading(_BEST, step):
            return self._managers[_BEST].restore(step, args=args)["scores"]

    def save_last(self, step: int, state: Tree, student: Tree) -> None:
        """Saves a state to go on from, in place of the oldest one."""
        if step in self.steps():
            return
        items = ocp.args.Composite(state=_to_save(state), student=_to_save(student))
        self._managers[_LAST].save(step, args=items, force=True)

    def save_best(self, step: int, student: Tree, scores: dict[str, Any]) -> None:
        """Saves a student as the best one, in place of the one before."""
        if self.best_step() == step:
            return
        items = ocp.args.Composite(student=_to_save(student), scores=ocp.args.JsonSave(scores))
        self._managers[_BEST].save(step, args=items, force=True)

    def restore_state(self, target: Tree, step: int) -> Tree:
        """Reads a state to go on from onto the shardings of `target`.

        Args:
          target: a tree of `ShapeDtypeStruct` with shardings, of the wanted structure.
          step: one of `steps`.

        Raises:
          UsageError: what is stored has another structure, shape or dtype.
        """
        return self._restore(_LAST, step, "state", target)

    def restore_student(self, which: str, target: Tree) -> tuple[int, Tree]:
        """Reads a student.

        Args:
          which: "best", "last" or a step's number.
          target: a tree of `ShapeDtypeStruct` with shardings, of the wanted structure.

        Returns:
          The step it is from, and its variables.

        Raises:
          UsageError: there is no such checkpoint, or it has another structure, shape or dtype.
        """
        available = {kind: manager.latest_step() for kind, manager in self._managers.items()}
        for kind, step in available.items():
            if step is not None and which in (kind, str(step)):
                return step, self._restore(kind, step, "student", target)
        there = ", ".join(f"{kind} (step {step})" for kind, step in available.items() if step is not None)
        there = f"--checkpoint can be {there}" if there else "train first, or choose another --workdir"
        raise UsageError(f"there is no checkpoint {which!r} in {self._folder}; {there}")

    def _reading(self, kind: str, step: int) -> AbstractContextManager[None]:
        return reading(f"the checkpoint in {self._folder / kind / str(step)}", ADVICE)

    def _restore(self, kind: str, step: int, item: str, target: Tree) -> Tree:
        manager = self._managers[kind]
        with self._reading(kind, step):
            stored = manager.item_metadata(step)[item]
            if stored is None:
                raise FileNotFoundError(f"no {item} in it")
            _check_same(_described(stored), _described(target), item)
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
            return manager.restore(step, args=args)[item]

    def close(self) -> None:
        """Waits for what is being written."""
        for manager in self._managers.values():
            manager.close()


def _to_save(tree: Tree) -> ocp.args.StandardSave:
    """Gives Orbax one of the copies that a process's devices hold of each array.

    It would else cut each array into as many slices as there are copies, so that each device writes its own:
    some hundred small arrays take three times as long that way.
    """

    def one_copy(array: Any) -> Any:
        here = isinstance(array, jax.Array) and array.is_fully_addressable and array.is_fully_replicated
        return array.addressable_data(0) if here else array

    return ocp.args.StandardSave(jax.tree.map(one_copy, tree))


def _described(tree: Tree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> shape and dtype of each leaf, whether its containers are dicts, tuples or dataclasses."""

    def name(entry: Any) -> str:
        return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(name(entry) for entry in path): (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves
    }


def _check_same(stored: dict[str, Any], wanted: dict[str, Any], item: str) -> None:
    """Orbax would cast another dtype silently; this compares every leaf."""
    differing = sorted(path for path in stored.keys() | wanted.keys() if stored.get(path) != wanted.get(path))
    if differing:
        path = differing[0]
        raise UsageError(
            f"the checkpoint's {item} does not fit this configuration: {len(differing)} arrays differ, first "
            f"{path}: stored {stored.get(path, 'nothing')}, wanted {wanted.get(path, 'nothing')}"
        )
