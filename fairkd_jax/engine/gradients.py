"""Combines the gradients of all objectives into one gradient of the student."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.objectives import (
    ADVERSARIAL,
    Inputs,
    Metrics,
    Multiplier,
    Objective,
    ObjectiveGradient,
    Projection,
    Ratio,
    Weighted,
)
from fairkd_jax.types import Outputs, Tree


class WeightedObjective(NamedTuple):
    """One objective at a step, with its inputs and its gradients.

    Attributes:
      objective: The objective.
      params: The objective's own parameters; empty where it has none.
      inputs: The inputs of the loss.
      gradient: The value of the loss, and its gradients.
      factor: The factor of the loss in the sum, see `objectives.loss_weights`.
    """

    objective: Objective
    params: Tree
    inputs: Inputs
    gradient: ObjectiveGradient
    factor: jax.Array | float


def compute_student_gradient(
    terms: Mapping[str, WeightedObjective],
    *,
    through_head: Callable[[Outputs], jax.Array],
    pullback: Callable[[Outputs], Tree],
) -> tuple[Tree, Metrics]:
    """Computes the gradient of the student.

    A single pullback serves all objectives; an objective that projects adds a pullback of its own.

    Args:
      terms: Objectives of a step, by name.
      through_head: Function that pulls a cotangent of the outputs back to the embedding [B, D]; the result
        includes the cotangent's own part at the embedding.
      pullback: Function that pulls a cotangent of the outputs back to the student's parameters.

    Returns:
      The gradient, and metrics. `loss` is the weighted sum of the losses that the student descends. With an
      adversary, `gradient_ratio` is the norm of the adversaries' gradient at the embedding over the norm of
      the gradient of all other objectives. An objective with a multiplier adds `multiplier`. An objective
      that projects adds `cosine`, the cosine between its gradient and the gradient of all other objectives.
    """
    descent, metrics = _combine_weighted(terms)
    adversaries = {
        name: term.gradient.cotangent
        for name, term in terms.items()
        if isinstance(term.objective.influence, ADVERSARIAL)
    }
    if not adversaries:
        return pullback(descent), metrics
    descent_norm = optax.tree.norm(through_head(descent))
    for name, cotangent in adversaries.items():
        if isinstance(terms[name].objective.influence, Ratio):
            unit = optax.tree.norm(through_head(cotangent))
            factor = _compute_strength(terms[name]) * descent_norm / jnp.where(unit > 0, unit, 1.0)
            adversaries[name] = scale(cotangent, factor)
    projecting = [name for name in adversaries if isinstance(terms[name].objective.influence, Projection)]
    strengths = {name: _compute_strength(terms[name]) for name in projecting}
    ascent = _add_trees([scale(c, strengths.get(name, 1.0)) for name, c in adversaries.items()])
    metrics["gradient_ratio"] = (optax.tree.norm(through_head(ascent)), descent_norm)
    gradient = pullback(
        _add_trees([descent, *(c for name, c in adversaries.items() if name not in projecting)])
    )
    for name in projecting:
        # The cotangent is reversed, but the projection takes the gradient of the adversary's own loss.
        adversary_gradient = scale(pullback(adversaries[name]), -1.0)
        gradient, cosine = project_out(gradient, adversary_gradient, strengths[name])
        metrics[f"{name}/cosine"] = (cosine, jnp.ones((), jnp.float32))
    return gradient, metrics


def project_out(gradient: Tree, adversary: Tree, strength: jax.Array) -> tuple[Tree, jax.Array]:
    """Removes the part of a gradient that would help the adversary, and acts against the adversary.

    The result is `g - (<g, a> / <a, a>) a - strength a` over all leaves together (Zhang et al. 2018, equation
    1 of arXiv 1801.07593). With strength 0 the result is g, as in a run without debiasing.

    Args:
      gradient: Gradient g of all other objectives, a pytree.
      adversary: Gradient a of the adversary's loss, a pytree of the same structure.
      strength: Strength alpha, a scalar.

    Returns:
      The new gradient, and the cosine between g and a, which is 0 where a is 0.
    """
    along = optax.tree.vdot(gradient, adversary)
    square = optax.tree.vdot(adversary, adversary)
    share = jnp.where(strength > 0, along / jnp.where(square > 0, square, 1.0), 0.0)
    length = optax.tree.norm(gradient) * jnp.sqrt(square)
    cosine = along / jnp.where(length > 0, length, 1.0)
    return jax.tree.map(lambda g, a: g - (share + strength) * a, gradient, adversary), cosine


def scale(tree: Tree, factor: jax.Array | float) -> Tree:
    """Multiplies every leaf by the factor."""
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _combine_weighted(terms: Mapping[str, WeightedObjective]) -> tuple[Outputs, Metrics]:
    """Combines all losses that the student descends; multipliers scale the losses of the labels."""
    weighted = {name: term for name, term in terms.items() if isinstance(term.objective.influence, Weighted)}
    one = jnp.ones((), jnp.float32)
    values = {name: term.factor * term.gradient.value for name, term in weighted.items()}
    cotangents = {name: scale(term.gradient.cotangent, term.factor) for name, term in weighted.items()}
    metrics: Metrics = {}
    for name, term in terms.items():
        if not isinstance(term.objective.influence, Multiplier):
            continue
        factor, slope = _differentiate_multiplier(term, term.objective.influence)
        metrics[f"{name}/multiplier"] = (factor, one)
        for key in [key for key in weighted if weighted[key].objective.is_task_loss]:
            cotangents[key] = _add_trees([scale(cotangents[key], factor), scale(slope, values[key])])
            values[key] = factor * values[key]
    metrics["loss"] = (sum(values.values(), jnp.zeros((), jnp.float32)), one)
    return _add_trees(list(cotangents.values())), metrics


def _differentiate_multiplier(term: WeightedObjective, multiplier: Multiplier) -> tuple[jax.Array, Outputs]:
    """Returns the factor, and its gradient at the student's outputs."""

    def compute_factor(student: Outputs) -> jax.Array:
        return multiplier.factor(term.params, term.inputs._replace(student=student))

    return jax.value_and_grad(compute_factor)(term.inputs.student)


def _compute_strength(term: WeightedObjective) -> jax.Array:
    """Returns the strength of an objective that acts by a ratio or by projection."""
    influence = term.objective.influence
    assert isinstance(influence, Ratio | Projection)
    return influence.strength(term.inputs)


def _add_trees(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: functools.reduce(operator.add, leaves), *trees)
