"""Many students in one program: they share the batch and the teacher's answer to it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fairkd_jax.training.evaluation import EvalStep
from fairkd_jax.training.sharding import over_members, replicated
from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import Step


def _each(step: Any, rest: Any) -> TrainState:
    """One thing for the step of a state, which stays common to all members, and another for all the rest.

    The augmentation, and with it the teacher's forward pass, depend on the step alone and are computed once.
    """
    return TrainState(
        step=step,
        seed=rest,
        params=rest,
        batch_stats=rest,
        objective_state=rest,
        opt_state=rest,
        ema=rest,
    )


# The axes of a population's state: every member has its own of all but the step.
MEMBERS = _each(None, 0)


def population_step(step: Step) -> Step:
    """The update of a population.

    Args:
      step: of one student, as `make_train_step` makes it.

    Returns:
      The same for states and weights with a leading axis over the members (all of a state but its step, see
      `MEMBERS`); its metrics have that axis.
    """
    return jax.vmap(step, in_axes=(MEMBERS, None, None, 0), out_axes=(MEMBERS, 0))


def population_eval_step(eval_step: EvalStep) -> EvalStep:
    """The scoring of a population on one batch: variables and results have an axis for the members."""
    return jax.vmap(eval_step, in_axes=(0, None))


def state_sharding(mesh: Mesh) -> TrainState:
    """Where a population's state lies: each member on the devices of its part of the population."""
    return _each(replicated(mesh), over_members(mesh))


def joining(mesh: Mesh) -> Callable[[Sequence[TrainState]], TrainState]:
    """The function that makes a population of lone states, which must all be at the same step."""

    def join(states: Sequence[TrainState]) -> TrainState:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return dataclasses.replace(stacked, step=states[0].step)

    return jax.jit(join, out_shardings=state_sharding(mesh))


def parting(mesh: Mesh) -> Callable[[TrainState, int], TrainState]:
    """The function that takes a lone state out of a population, onto every device."""

    def part(state: TrainState, i: jax.Array) -> TrainState:
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
        own = {
            field.name: jax.tree.map(take, getattr(state, field.name))
            for field in dataclasses.fields(state)
            if field.name != "step"
        }
        return dataclasses.replace(state, **own)

    return jax.jit(part, out_shardings=replicated(mesh))
