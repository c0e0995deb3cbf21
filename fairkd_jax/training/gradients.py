"""How the objectives' pulls on the student become one gradient."""

import functools
import operator
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.objectives import Inputs, Metrics, Objective, Pull, has_strength
from fairkd_jax.types import Outputs, Tree


def student_gradient(
    objectives: Mapping[str, Objective],
    params: Mapping[str, Tree],
    inputs: Mapping[str, Inputs],
    pulls: Mapping[str, Pull],
    factors: Mapping[str, jax.Array | float],
    *,
    through_head: Callable[[Outputs], jax.Array],
    pullback: Callable[[Outputs], Tree],
) -> tuple[Tree, Metrics]:
    """The gradient of the student, from one pullback; two where an objective projects.

    Args:
      objectives: by name.
      params: of the objectives that have any, by name.
      inputs: what each objective was given, by name.
      pulls: their values and cotangents at the student's outputs, by name.
      factors: by name, see `objectives.coefficients`.
      through_head: pulls a cotangent of the outputs back to the embedding [B, D], its own part included.
      pullback: pulls a cotangent of the outputs back to the student's parameters.

    Returns:
      The gradient, and metrics: `loss`, the weighted sum of what the student descends; where there is an
      adversary, `gradient_ratio`, the norm of the adversaries' pull on the embedding over that of all others;
      the multiplier of an objective that has one; the cosine between the two sides where one projects.
    """
    metrics: Metrics = {}
    teaching = _multiplied(objectives, params, inputs, pulls, factors, metrics)
    adversaries = {name: pulls[name].cotangent for name in pulls if objectives[name].adversarial}
    if not adversaries:
        return pullback(teaching), metrics
    taught = optax.tree.norm(through_head(teaching))
    for name, cotangent in adversaries.items():
        if objectives[name].acts_by == "ratio":
            unit = optax.tree.norm(through_head(cotangent))
            scale = _strength(objectives[name], inputs[name]) * taught / jnp.where(unit > 0, unit, 1.0)
            adversaries[name] = _scaled(cotangent, scale)
    projecting = [name for name in adversaries if objectives[name].acts_by == "projection"]
    strengths = {name: _strength(objectives[name], inputs[name]) for name in projecting}
    pulled = _sum([_scaled(c, strengths.get(name, 1.0)) for name, c in adversaries.items()])
    metrics["gradient_ratio"] = (optax.tree.norm(through_head(pulled)), taught)
    gradient = pullback(_sum([teaching, *(c for name, c in adversaries.items() if name not in projecting)]))
    for name in projecting:
        # What reaches the student is reversed; the projection is of the adversary's own gradient.
        helping = _scaled(pullback(adversaries[name]), -1.0)
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


def _multiplied(
    objectives: Mapping[str, Objective],
    params: Mapping[str, Tree],
    inputs: Mapping[str, Inputs],
    pulls: Mapping[str, Pull],
    factors: Mapping[str, jax.Array | float],
    metrics: Metrics,
) -> Outputs:
    """The cotangent of what the student descends, the loss of the labels times the multipliers."""
    taught = {name: p for name, p in pulls.items() if not has_strength(objectives[name])}
    task = [name for name in taught if objectives[name].task]
    one = jnp.ones((), jnp.float32)
    values = {name: factors[name] * p.value for name, p in taught.items()}
    cotangents = {name: _scaled(p.cotangent, factors[name]) for name, p in taught.items()}
    for name, objective in objectives.items():
        if objective.multiplier is None:
            continue
        factor, slope = _multiplier(objective, params.get(name, {}), inputs[name])
        metrics[f"{name}/multiplier"] = (factor, one)
        for key in task:
            cotangents[key] = _sum([_scaled(cotangents[key], factor), _scaled(slope, values[key])])
            values[key] = factor * values[key]
    metrics["loss"] = (sum(values.values(), jnp.zeros((), jnp.float32)), one)
    return _sum(list(cotangents.values()))


def _multiplier(objective: Objective, params: Tree, inputs: Inputs) -> tuple[jax.Array, Outputs]:
    """The factor, and its gradient at the student's outputs."""
    multiplier = objective.multiplier
    assert multiplier is not None
    return jax.value_and_grad(lambda student: multiplier(params, inputs._replace(student=student)))(
        inputs.student
    )


def _strength(objective: Objective, inputs: Inputs) -> jax.Array:
    assert objective.strength is not None, "an objective that acts by ratio or projection says how strongly"
    return objective.strength(inputs)


def _scaled(tree: Tree, factor: jax.Array | float) -> Tree:
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _sum(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: functools.reduce(operator.add, leaves), *trees)
