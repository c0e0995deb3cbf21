"""Conventional knowledge distillation (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

import math

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import (
    Inputs,
    Metrics,
    Objective,
    TaskInfo,
    Weighted,
    check_warmup,
    promote_to_float32,
)
from fairkd_jax.objectives.standardization import check_standardizable, select_logits
from fairkd_jax.types import Tree


def _compute_exp_remainder(x: jax.Array) -> jax.Array:
    """Computes `exp(x) - 1 - x` for abs(x) <= 1 by its series, which loses no digit where x is small."""
    total = jnp.ones_like(x)
    for n in range(18, 2, -1):  # the first omitted term is below 1e-17 of the sum
        total = 1.0 + x / n * total
    return 0.5 * x**2 * total


def compute_divergence(log_p: jax.Array, difference: jax.Array) -> jax.Array:
    """Computes KL(p || q) from log p and the logits of q minus the logits of p.

    The divergence is the logarithm of the mean of exp(d) under p, where d are the differences minus their own
    mean under p. The usual sum of p (log p - log q) is a small difference of large terms at a high
    temperature, and where q is close to p. In float32, three digits of such a difference are right, or none.
    Here, small d enter as the mean of exp(d) - 1 - d, whose terms are all positive, and six digits are right.
    A probability of exactly 0 gives no NaN.

    Args:
      log_p: Logarithms of p, float [B, C], normalized.
      difference: Logits of q minus logits of p, float [B, C], each up to a constant.

    Returns:
      Divergences in nats, [B].
    """
    p = jnp.exp(log_p)
    difference -= jnp.sum(p * difference, axis=1, keepdims=True)
    is_small = jnp.max(jnp.abs(difference), axis=1) < 1.0
    near = jnp.log1p(jnp.sum(p * _compute_exp_remainder(jnp.clip(difference, -1.0, 1.0)), axis=1))
    far = jax.nn.logsumexp(log_p + difference, axis=1)
    return jnp.where(is_small, near, far)


def kl_divergence(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """Computes `T^2 KL(teacher || student)` of the softmaxes at temperature T.

    No gradient reaches the teacher's logits.

    Args:
      student_logits: The student's logits, float [B, C].
      teacher_logits: The teacher's logits, float [B, C].
      temperature: Temperature T > 0, a scalar or [B]. Gradients flow to T through both softmaxes and through
        T^2.

    Returns:
      Losses summed over the classes, in nats times T^2, [B], at least float32.
    """
    student_logits = promote_to_float32(student_logits)
    teacher_logits = promote_to_float32(jax.lax.stop_gradient(teacher_logits))
    temperature = jnp.asarray(temperature, student_logits.dtype)
    divisor = jnp.reshape(temperature, (-1, 1))  # [B, 1] or [1, 1]
    log_p = jax.nn.log_softmax(teacher_logits / divisor)
    return temperature**2 * compute_divergence(log_p, (student_logits - teacher_logits) / divisor)


def check_temperature(section: str, temperature: float) -> None:
    """Checks the fixed temperature of a config's section.

    Args:
      section: Name of the section, for the message.
      temperature: The temperature.

    Raises:
      UsageError: The temperature is not positive, or not finite.
    """
    if not 0.0 < temperature < math.inf:
        raise UsageError(f"{section}.temperature={temperature} must be above 0 and finite; 4.0 is usual")


def make_objective(
    *, temperature: float = 4.0, standardize: bool = False, warmup_epochs: float = 0.0
) -> Objective:
    """Makes the objective that learns from the teacher's softened probabilities.

    Args:
      temperature: Temperature T of both softmaxes, above 0.
      standardize: Whether both models' logits are scaled to mean 0 and deviation 1 first (Sun et al. 2024).
      warmup_epochs: Number of epochs over which the weight rises linearly from 0; 0.0 for a constant weight.

    Raises:
      UsageError: An option is out of range; or, from `init`, there are fewer than 3 classes to standardize.
    """
    check_temperature("ckd", temperature)
    check_warmup("ckd", warmup_epochs)

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        del key
        if standardize:
            check_standardizable("ckd", info.num_classes)
        return {}, {}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        student, teacher = select_logits(inputs, standardize)
        return kl_divergence(student, teacher, temperature), (state, {})

    return Objective(init, loss, label="CKD", influence=Weighted(warmup_epochs), uses_teacher=True)
