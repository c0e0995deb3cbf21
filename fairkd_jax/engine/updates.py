"""The updates of all groups of parameters at a step: the student's, and those of each objective."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.engine.gradients import WeightedObjective
from fairkd_jax.engine.state import TrainState, update_average
from fairkd_jax.objectives import Inputs, Objective, differentiate
from fairkd_jax.types import Tree

STUDENT = "student"
OBJECTIVES = "objectives"  # group name of the optimizer that objectives without their own one share


def find_optimizer(
    optimizers: Mapping[str, optax.GradientTransformation], group: str
) -> optax.GradientTransformation:
    """Returns the optimizer of a group: its own, the objectives', or the student's.

    Args:
      optimizers: Optimizers by group of parameters, at least the student's.
      group: `STUDENT`, or the name of an objective.
    """
    return optimizers.get(group, optimizers.get(OBJECTIVES, optimizers[STUDENT]))


@dataclasses.dataclass(frozen=True)
class Updater:
    """The optimizers of a step, with the functions that change the state.

    Attributes:
      optimizers: Optimizers by group of parameters.
      objectives: Objectives by name.
      rate: Factor of the common learning rate, float32 scalar; None for no factor.
    """

    optimizers: Mapping[str, optax.GradientTransformation]
    objectives: Mapping[str, Objective]
    rate: jax.Array | None

    def run_inner_steps(self, state: TrainState, inputs: Mapping[str, Inputs]) -> TrainState:
        """Returns the state after the extra updates of objectives, which precede the student's update.

        Args:
          state: The state before the step.
          inputs: Inputs of the step by objective.
        """
        params, opt_state, own = dict(state.params), dict(state.opt_state), dict(state.objective_state)
        for name, objective in self.objectives.items():
            if not objective.extra_steps or name not in params:
                continue

            def inner_step(
                carry: Any, i: jax.Array, name: str = name, objective: Objective = objective
            ) -> Any:
                parameters, optimizer_state, objective_state = carry
                step_inputs = inputs[name]._replace(key=jax.random.fold_in(inputs[name].key, i))
                found = differentiate(objective, parameters, objective_state, step_inputs, name=name)
                return (*self._apply(name, found.gradient, optimizer_state, parameters), found.state), None

            carry = (params[name], opt_state[name], own[name])
            carry, _ = jax.lax.scan(inner_step, carry, jnp.arange(objective.extra_steps))
            params[name], opt_state[name], own[name] = carry
        return dataclasses.replace(state, params=params, opt_state=opt_state, objective_state=own)

    def update_state(
        self,
        state: TrainState,
        gradients: Mapping[str, Tree],
        terms: Mapping[str, WeightedObjective],
        batch_stats: Tree,
        ema_decay: float,
    ) -> TrainState:
        """Returns the state after the update of all groups.

        Args:
          state: The state before the update.
          gradients: Gradients by group.
          terms: Objectives of the step, by name; they hold the next states of the objectives.
          batch_stats: The student's next running statistics.
          ema_decay: Decay of the student's average; 0.0 for no average.
        """
        params, opt_state = dict(state.params), dict(state.opt_state)
        for group, gradient in gradients.items():
            params[group], opt_state[group] = self._apply(group, gradient, opt_state[group], params[group])
        current = {"params": params[STUDENT], "batch_stats": batch_stats}
        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            objective_state={name: term.gradient.state for name, term in terms.items()},
            opt_state=opt_state,
            ema=update_average(state.ema, current, state.step, ema_decay) if ema_decay else state.ema,
        )

    def _apply(self, group: str, gradient: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        """Returns a group's next parameters and optimizer state; `rate` scales the common learning rate."""
        updates, state = find_optimizer(self.optimizers, group).update(gradient, state, params)
        has_own_rate = group in self.objectives and self.objectives[group].learning_rate is not None
        if self.rate is not None and not has_own_rate:
            updates = jax.tree.map(lambda update: self.rate * update, updates)
        return optax.apply_updates(params, updates), state
