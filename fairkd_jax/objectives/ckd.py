"""Conventional knowledge distillation (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, at_least_float32, stateless
from fairkd_jax.types import Tree


def kl_divergence(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """`T^2 KL(teacher || student)` of the softmaxes at temperature T.

    Computed as the logarithm of the teacher's mean of exp(d), where d are the differences of the logits over
    T, less their mean under the teacher. At a high temperature the usual sum of p (log p - log q) is a small
    difference of large terms, of which float32 keeps three digits; this form keeps six. A probability of
    exactly 0 gives no NaN. No gradient reaches the teacher's logits.

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
    p = jnp.exp(log_p)
    difference = (student_logits - teacher_logits) / divisor
    difference -= jnp.sum(p * difference, axis=1, keepdims=True)
    is_small = jnp.max(jnp.abs(difference), axis=1) < 1.0
    near = jnp.log1p(jnp.sum(p * jnp.expm1(jnp.clip(difference, -1.0, 1.0)), axis=1))
    far = jax.nn.logsumexp(log_p + difference, axis=1)
    return temperature**2 * jnp.where(is_small, near, far)


def objective(*, temperature: float = 4.0) -> Objective:
    """Learning from the teacher's softened probabilities.

    Args:
      temperature: T > 0.

    Raises:
      UsageError: temperature is not positive.
    """
    if not temperature > 0:
        raise UsageError(f"temperature={temperature} must be above 0; 4.0 is usual")

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        assert inputs.teacher is not None
        return kl_divergence(inputs.student.logits, inputs.teacher.logits, temperature), (state, {})

    return Objective(stateless, loss, uses_teacher=True)
