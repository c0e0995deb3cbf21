"""Conventional knowledge distillation (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

import math

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import (
    Inputs,
    Metrics,
    Objective,
    at_least_float32,
    checked_warmup,
    stateless,
)
from fairkd_jax.objectives.standardization import both_logits
from fairkd_jax.types import Tree


def _beyond_linear(x: jax.Array) -> jax.Array:
    """`exp(x) - 1 - x` for abs(x) <= 1, by its series: no digit is lost where x is small."""
    total = jnp.ones_like(x)
    for n in range(18, 2, -1):  # the first term left out is below 1e-17 of the sum
        total = 1.0 + x / n * total
    return 0.5 * x**2 * total


def divergence(log_p: jax.Array, difference: jax.Array) -> jax.Array:
    """KL(p || q) from log p and what the logits of q have more than those of p.

    It is the logarithm of the mean of exp(d) under p, where d are the differences less their own mean under
    p. At a high temperature, and where q is close to p, the usual sum of p (log p - log q) is a small
    difference of large terms, of which float32 keeps three digits or none. Here small d enter as the mean of
    exp(d) - 1 - d, whose terms are all positive: that keeps six. A probability of exactly 0 gives no NaN.

    Args:
      log_p: float [B, C], normalised.
      difference: float [B, C], logits of q minus logits of p, each up to a constant.

    Returns:
      [B], in nats.
    """
    p = jnp.exp(log_p)
    difference -= jnp.sum(p * difference, axis=1, keepdims=True)
    is_small = jnp.max(jnp.abs(difference), axis=1) < 1.0
    near = jnp.log1p(jnp.sum(p * _beyond_linear(jnp.clip(difference, -1.0, 1.0)), axis=1))
    far = jax.nn.logsumexp(log_p + difference, axis=1)
    return jnp.where(is_small, near, far)


def kl_divergence(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """`T^2 KL(teacher || student)` of the softmaxes at temperature T.

    No gradient reaches the teacher's logits.

    Args:
      student_logits: float [B, C].
      teacher_logits: float [B, C].
      temperature: T > 0, a scalar or [B]; gradients flow to it through both softmaxes and through T^2.

    Returns:
      [B], summed over classes, in nats times T^2, at least float32.
    """
    student_logits = at_least_float32(student_logits)
    teacher_logits = at_least_float32(jax.lax.stop_gradient(teacher_logits))
    temperature = jnp.asarray(temperature, student_logits.dtype)
    divisor = jnp.reshape(temperature, (-1, 1))  # [B, 1] or [1, 1]
    log_p = jax.nn.log_softmax(teacher_logits / divisor)
    return temperature**2 * divergence(log_p, (student_logits - teacher_logits) / divisor)


def check_temperature(section: str, temperature: float) -> None:
    """Checks the fixed temperature of a config's section.

    Raises:
      UsageError: it is not positive, or not finite.
    """
    if not 0.0 < temperature < math.inf:
        raise UsageError(f"{section}.temperature={temperature} must be above 0 and finite; 4.0 is usual")


def objective(
    *, temperature: float = 4.0, standardize: bool = False, warmup_epochs: float = 0.0
) -> Objective:
    """Learning from the teacher's softened probabilities.

    Args:
      temperature: T > 0.
      standardize: whether both models' logits are standardised first; see `standardization`.
      warmup_epochs: the weight rises linearly from 0 over so many epochs; 0.0: none.

    Raises:
      UsageError: an option is out of range.
    """
    check_temperature("ckd", temperature)

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        student, teacher = both_logits(inputs, standardize)
        return kl_divergence(student, teacher, temperature), (state, {})

    return Objective(stateless, loss, uses_teacher=True, warmup_epochs=checked_warmup("ckd", warmup_epochs))
