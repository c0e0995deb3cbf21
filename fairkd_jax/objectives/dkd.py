"""Decoupled knowledge distillation (Zhao et al. 2022, arXiv 2203.08679, equation 7).

The divergence of CKD splits into a part on the probability of the label against all others, and a part on how
the others share the rest, which CKD scales by the teacher's doubt. Here each has a weight of its own.
"""

import math

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32, checked_warmup
from fairkd_jax.objectives.ckd import check_temperature, divergence
from fairkd_jax.objectives.standardization import both_logits
from fairkd_jax.types import Tree


def _check_classes(num_classes: int) -> None:
    if num_classes < 3:
        raise UsageError(
            f"dkd compares the classes beside the label, and {num_classes} are too few for it; use ckd"
        )


def _split(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, C] -> the label's [B, 1] and all others' [B, C - 1]."""
    position = jnp.arange(logits.shape[1] - 1)[None, :]
    others = position + (position >= labels[:, None])
    return (
        jnp.take_along_axis(logits, labels[:, None], axis=1),
        jnp.take_along_axis(logits, others, axis=1),
    )


def decoupled_kl(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    alpha: float,
    beta: float,
    temperature: jax.Array | float,
) -> jax.Array:
    """`T^2 (alpha KL(b_t || b_s) + beta KL(p_t || p_s))`.

    b is the pair (probability of the label, of any other class), p the softmax over the classes other than
    the label, both at temperature T. No gradient reaches the teacher's logits.

    Args:
      student_logits: float [B, C], C at least 3.
      teacher_logits: float [B, C].
      labels: int32 [B].
      alpha: weight of the label's part.
      beta: weight of the others' part.
      temperature: T > 0, a scalar or [B]; gradients flow to it.

    Returns:
      [B], in nats times T^2, at least float32.

    Raises:
      UsageError: fewer than 3 classes.
    """
    _check_classes(student_logits.shape[1])
    student = at_least_float32(student_logits)
    teacher = at_least_float32(jax.lax.stop_gradient(teacher_logits))
    temperature = jnp.asarray(temperature, student.dtype)
    divisor = jnp.reshape(temperature, (-1, 1))  # [B, 1] or [1, 1]
    label_difference, difference = _split((student - teacher) / divisor, labels)
    label_logit, logits = _split(teacher / divisor, labels)
    log_p = jax.nn.log_softmax(logits)
    others_part = divergence(log_p, difference)
    # By how much the logarithm of the others' summed exponentials differs between student and teacher.
    shift = (others_part + jnp.sum(jnp.exp(log_p) * difference, axis=1))[:, None]
    pair = jnp.concatenate([label_logit, jax.nn.logsumexp(logits, axis=1, keepdims=True)], axis=1)
    label_part = divergence(jax.nn.log_softmax(pair), jnp.concatenate([label_difference, shift], axis=1))
    return temperature**2 * (alpha * label_part + beta * others_part)


def objective(
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    warmup_epochs: float = 0.0,
    standardize: bool = False,
) -> Objective:
    """Learning from the teacher's probabilities, the label's and the others' apart.

    Args:
      alpha: weight of the label's part.
      beta: weight of the others' part.
      temperature: T > 0.
      warmup_epochs: the weight rises linearly from 0 over so many epochs; 0.0: none.
      standardize: whether both models' logits are standardised first; see `standardization`.

    Raises:
      UsageError: an option is out of range; from `init`, fewer than 3 classes.
    """
    check_temperature("dkd", temperature)
    for key, weight in (("alpha", alpha), ("beta", beta)):
        if not 0.0 <= weight < math.inf:
            raise UsageError(f"dkd.{key}={weight} must be 0 or more, and finite")

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        del key
        _check_classes(spec.num_classes)
        return {}, {}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        student, teacher = both_logits(inputs, standardize)
        label = inputs.batch["label"]
        value = decoupled_kl(student, teacher, label, alpha=alpha, beta=beta, temperature=temperature)
        return value, (state, {})

    return Objective(init, loss, uses_teacher=True, warmup_epochs=checked_warmup("dkd", warmup_epochs))
