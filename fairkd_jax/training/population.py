"""Many students in one program: they share the batch and the teacher's answer to it."""

import jax

from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import Step

# Every member has its own of all but the step, which stays common to them: the augmentation, and with it the
# teacher's forward pass, depend on the step alone and are computed once.
MEMBERS = TrainState(
    step=None,  # type: ignore[arg-type]
    seed=0,  # type: ignore[arg-type]
    params=0,  # type: ignore[arg-type]
    batch_stats=0,
    objective_state=0,  # type: ignore[arg-type]
    opt_state=0,  # type: ignore[arg-type]
    ema=0,  # type: ignore[arg-type]
)


def population_step(step: Step) -> Step:
    """The update of a population.

    Args:
      step: of one student, as `make_train_step` makes it.

    Returns:
      The same for states and weights with a leading axis over the members (all of a state but its step, see
      `MEMBERS`); its metrics have that axis.
    """
    return jax.vmap(step, in_axes=(MEMBERS, None, None, 0), out_axes=(MEMBERS, 0))
