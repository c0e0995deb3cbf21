"""How the objectives' pulls on the student become one gradient."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.objectives import Metrics, Objective, Pull, coefficients, weighted_sum
from fairkd_jax.types import Outputs


def _embedding_norm(cotangents: Mapping[str, Outputs], factors: Mapping[str, jax.Array | float]) -> jax.Array:
    return optax.tree.norm(weighted_sum(cotangents, factors).embedding)


def combine(
    objectives: Mapping[str, Objective], pulls: Mapping[str, Pull], weights: Mapping[str, jax.Array]
) -> tuple[Outputs, Metrics]:
    """Adds the weighted cotangents of all objectives.

    Args:
      objectives: by name.
      pulls: by name, their values and cotangents at the student's outputs.
      weights: by name, float32 scalars.

    Returns:
      The cotangent of the sum, and metrics: the weighted sum of the losses that the student descends, and
      the norm of the adversaries' pull on the embedding over the norm of all others'.
    """
    factors = coefficients(objectives, weights)
    cotangents = {name: pull.cotangent for name, pull in pulls.items()}
    adversaries = {name: c for name, c in cotangents.items() if objectives[name].adversarial}
    teaching = {name: c for name, c in cotangents.items() if name not in adversaries}
    one = jnp.ones((), jnp.float32)
    metrics = {"loss": (weighted_sum({name: pulls[name].value for name in teaching}, factors), one)}
    if adversaries:
        pulled, taught = _embedding_norm(adversaries, factors), _embedding_norm(teaching, factors)
        metrics["gradient_ratio"] = (pulled / jnp.maximum(taught, 1e-12), one)
    return weighted_sum(cotangents, factors), metrics
