"""How the objectives' pulls on the student become one gradient."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.objectives import Metrics, Objective, Pull, weighted_sum
from fairkd_jax.types import Outputs


def combine(
    objectives: Mapping[str, Objective],
    pulls: Mapping[str, Pull],
    factors: Mapping[str, jax.Array | float],
    through_head: Callable[[jax.Array], jax.Array],
) -> tuple[Outputs, Metrics]:
    """Adds the weighted cotangents of all objectives.

    Args:
      objectives: by name.
      pulls: by name, their values and cotangents at the student's outputs.
      factors: by name, see `objectives.coefficients`.
      through_head: pulls a cotangent of the logits [B, C] back to the embedding [B, D].

    Returns:
      The cotangent of the sum, and metrics: the weighted sum of the losses that the student descends, and
      the norm of the adversaries' pull on the embedding over the norm of all others', each with what comes
      to the embedding through the head.
    """
    cotangents = {name: pull.cotangent for name, pull in pulls.items()}
    adversaries = {name: c for name, c in cotangents.items() if objectives[name].adversarial}
    teaching = {name: c for name, c in cotangents.items() if name not in adversaries}
    one = jnp.ones((), jnp.float32)
    metrics = {"loss": (weighted_sum({name: pulls[name].value for name in teaching}, factors), one)}
    if adversaries:
        pulled, taught = (
            optax.tree.norm(part.embedding + through_head(part.logits))
            for part in (weighted_sum(adversaries, factors), weighted_sum(teaching, factors))
        )
        metrics["gradient_ratio"] = (pulled, taught)
    return weighted_sum(cotangents, factors), metrics
