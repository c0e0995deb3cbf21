"""The state from which a training starts: the newest one that all students have saved, or a new one."""

from collections.abc import Callable, Sequence

from absl import logging

from fairkd_jax.engine.state import TrainState
from fairkd_jax.errors import UsageError
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.checkpoint_arrays import MisfitError


def restore_newest(
    checkpoints: Sequence[Checkpoints],
    target: TrainState,
    join: Callable[[Sequence[TrainState]], TrainState],
) -> tuple[TrainState | None, int]:
    """Reads the newest state that all students have saved.

    Where that one is damaged, the one before is read, with a warning, and the damaged one is deleted: the
    training then saves it again.

    Args:
      checkpoints: The open checkpoints of each student.
      target: Shapes, dtypes and shardings of the state of one student.
      join: Function `states -> state` of all students.

    Returns:
      The state and its step; None and 0 where the students have saved no common step.

    Raises:
      UsageError: The checkpoints do not fit the target, or all of them are damaged.
    """
    damaged: dict[int, UsageError] = {}
    steps = sorted(set.intersection(*(own.steps() for own in checkpoints)), reverse=True)
    for step in steps:
        try:
            state = join([own.restore_state(target, step) for own in checkpoints])
        except MisfitError:
            raise
        except UsageError as error:
            damaged[step] = error
            continue
        for number, reason in damaged.items():
            logging.warning("%s; the training goes on from step %d instead", reason, step)
            for own in checkpoints:
                own.delete_last(number)
        return state, step
    if damaged:
        raise damaged[steps[0]]
    return None, 0
