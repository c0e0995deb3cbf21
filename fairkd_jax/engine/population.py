"""Many students in one program, which share the batch and the teacher's outputs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fairkd_jax.engine.eval_step import EvalStep
from fairkd_jax.engine.sharding import make_member_sharding, make_replicated_sharding
from fairkd_jax.engine.state import TrainState
from fairkd_jax.engine.train_step import Step


def _fill_state(step: Any, rest: Any) -> TrainState:
    """Makes a state-shaped tree with one value for the step and another value for all other fields.

    All members share the step. The augmentation and the teacher's forward pass depend on the step alone, and
    are therefore computed once.
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


# The axes of a population's state: every member has all fields of its own but the step.
MEMBERS = _fill_state(None, 0)


def make_population_step(step: Step) -> Step:
    """Makes the update of a population.

    Args:
      step: The update of one student, see `make_train_step`.

    Returns:
      The update for states and weights with a leading axis over the members; the step of a state has no such
      axis, see `MEMBERS`. The metrics have the axis, too.
    """
    return jax.vmap(step, in_axes=(MEMBERS, None, None, 0), out_axes=(MEMBERS, 0))


def make_population_eval_step(eval_step: EvalStep) -> EvalStep:
    """Makes the scoring of a population; variables and results have a leading axis over the members."""
    return jax.vmap(eval_step, in_axes=(0, None))


def make_state_sharding(mesh: Mesh) -> TrainState:
    """Returns the sharding of a population's state: each member is on the devices of its part."""
    return _fill_state(make_replicated_sharding(mesh), make_member_sharding(mesh))


def make_join(mesh: Mesh) -> Callable[[Sequence[TrainState]], TrainState]:
    """Makes the function that joins single states, all at the same step, to a population."""

    def join(states: Sequence[TrainState]) -> TrainState:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return dataclasses.replace(stacked, step=states[0].step)

    return jax.jit(join, out_shardings=make_state_sharding(mesh))


def make_part(mesh: Mesh) -> Callable[[TrainState, int], TrainState]:
    """Makes the function that takes a single state out of a population, onto every device."""

    def part(state: TrainState, i: jax.Array) -> TrainState:
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
        own = {
            field.name: jax.tree.map(take, getattr(state, field.name))
            for field in dataclasses.fields(state)
            if field.name != "step"
        }
        return dataclasses.replace(state, **own)

    return jax.jit(part, out_shardings=make_replicated_sharding(mesh))
