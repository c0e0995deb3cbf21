"""How the objectives' pulls on the student become one gradient."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.objectives import Inputs, Metrics, Objective, Pull, has_strength
from fairkd_jax.types import Outputs, Tree


class Term(NamedTuple):
    """One objective at a step.

    Attributes:
      objective: it.
      params: its own parameters; empty where it has none.
      inputs: what it was given.
      pull: its value, and its cotangent at the student's outputs.
      factor: of it in the sum, see `objectives.coefficients`.
    """

    objective: Objective
    params: Tree
    inputs: Inputs
    pull: Pull
    factor: jax.Array | float


def student_gradient(
    terms: Mapping[str, Term],
    *,
    through_head: Callable[[Outputs], jax.Array],
    pullback: Callable[[Outputs], Tree],
) -> tuple[Tree, Metrics]:
    """The gradient of the student, from one pullback; two where an objective projects.

    Args:
      terms: by the names of their objectives.
      through_head: pulls a cotangent of the outputs back to the embedding [B, D], its own part included.
      pullback: pulls a cotangent of the outputs back to the student's parameters.

    Returns:
      The gradient, and metrics: `loss`, the weighted sum of what the student descends; where there is an
      adversary, `gradient_ratio`, the norm of the adversaries' pull on the embedding over that of all others;
      the multiplier of an objective that has one; the cosine between the two sides where one projects.
    """
    teaching, metrics = _teaching(terms)
    adversaries = {name: term.pull.cotangent for name, term in terms.items() if term.objective.adversarial}
    if not adversaries:
        return pullback(teaching), metrics
    taught = optax.tree.norm(through_head(teaching))
    for name, cotangent in adversaries.items():
        if terms[name].objective.acts_by == "ratio":
            unit = optax.tree.norm(through_head(cotangent))
            scale = _strength(terms[name]) * taught / jnp.where(unit > 0, unit, 1.0)
            adversaries[name] = scaled(cotangent, scale)
    projecting = [name for name in adversaries if terms[name].objective.acts_by == "projection"]
    strengths = {name: _strength(terms[name]) for name in projecting}
    pulled = _sum([scaled(c, strengths.get(name, 1.0)) for name, c in adversaries.items()])
    metrics["gradient_ratio"] = (optax.tree.norm(through_head(pulled)), taught)
    gradient = pullback(_sum([teaching, *(c for name, c in adversaries.items() if name not in projecting)]))
    for name in projecting:
        # What reaches the student is reversed; the projection is of the adversary's own gradient.
        helping = scaled(pullback(adversaries[name]), -1.0)
        gradient, cosine = projected(gradient, helping, strengths[name])
        metrics[f"{name}/cosine"] = (cosine, jnp.ones((), jnp.float32))
    return gradient, metrics


def projected(gradient: Tree, adversary: Tree, strength: jax.Array) -> tuple[Tree, jax.Array]:
    """Takes out of a gradient what would help the adversary, and goes against it (Zhang et al. 2018).

    `g - (<g, a> / <a, a>) a - strength a`, equation 1 of arXiv 1801.07593, over all leaves at once; g itself
    where the strength is 0, so that a run without debiasing is just that.

    Args:
      gradient: g, a pytree.
      adversary: a, of the same structure: the gradient of the adversary's loss.
      strength: scalar, alpha.

    Returns:
      The new gradient, and the cosine between g and a; 0 where a is 0.
    """
    along = optax.tree.vdot(gradient, adversary)
    square = optax.tree.vdot(adversary, adversary)
    share = jnp.where(strength > 0, along / jnp.where(square > 0, square, 1.0), 0.0)
    length = optax.tree.norm(gradient) * jnp.sqrt(square)
    cosine = along / jnp.where(length > 0, length, 1.0)
    return jax.tree.map(lambda g, a: g - (share + strength) * a, gradient, adversary), cosine


def scaled(tree: Tree, factor: jax.Array | float) -> Tree:
    """Every leaf times the factor."""
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _teaching(terms: Mapping[str, Term]) -> tuple[Outputs, Metrics]:
    """The cotangent of what the student descends, the loss of the labels times the multipliers."""
    taught = {name: term for name, term in terms.items() if not has_strength(term.objective)}
    one = jnp.ones((), jnp.float32)
    values = {name: term.factor * term.pull.value for name, term in taught.items()}
    cotangents = {name: scaled(term.pull.cotangent, term.factor) for name, term in taught.items()}
    metrics: Metrics = {}
    for name, term in terms.items():
        if term.objective.multiplier is None:
            continue
        factor, slope = _multiplier(term)
        metrics[f"{name}/multiplier"] = (factor, one)
        for key in [key for key in taught if taught[key].objective.task]:
            cotangents[key] = _sum([scaled(cotangents[key], factor), scaled(slope, values[key])])
            values[key] = factor * values[key]
    metrics["loss"] = (sum(values.values(), jnp.zeros((), jnp.float32)), one)
    return _sum(list(cotangents.values())), metrics


def _multiplier(term: Term) -> tuple[jax.Array, Outputs]:
    """The factor, and its gradient at the student's outputs."""
    multiplier = term.objective.multiplier
    assert multiplier is not None
    return jax.value_and_grad(lambda student: multiplier(term.params, term.inputs._replace(student=student)))(
        term.inputs.student
    )


def _strength(term: Term) -> jax.Array:
    strength = term.objective.strength
    assert strength is not None, "an objective that acts by ratio or projection says how strongly"
    return strength(term.inputs)


def _sum(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: functools.reduce(operator.add, leaves), *trees)
