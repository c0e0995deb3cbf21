"""Decoupled knowledge distillation (Zhao et al. 2022, arXiv 2203.08679, equation 7).

The divergence of CKD has two parts. The first part compares the probability of the label with the sum of all
other probabilities. The second part compares how the other classes share that sum; CKD scales this part by
the teacher's doubt. Here each part has a weight of its own.
"""

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
from fairkd_jax.objectives.ckd import check_temperature, compute_divergence
from fairkd_jax.objectives.standardization import select_logits
from fairkd_jax.types import Tree


def _check_classes(num_classes: int) -> None:
    if num_classes < 3:
        raise UsageError(
            f"dkd compares the classes other than the label and needs at least 3 classes, not {num_classes};"
            " use ckd"
        )


def _split_logits(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits logits [B, C] into the logit of the label, [B, 1], and all other logits, [B, C - 1]."""
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
    """Computes `T^2 (alpha KL(b_t || b_s) + beta KL(p_t || p_s))`.

    b is the pair of the label's probability and the probability of any other class. p is the softmax over the
    classes other than the label. Both are at temperature T. No gradient reaches the teacher's logits.

    Args:
      student_logits: The student's logits, float [B, C], C at least 3.
      teacher_logits: The teacher's logits, float [B, C].
      labels: Labels, int32 [B].
      alpha: Weight of the part on the label.
      beta: Weight of the part on the other classes.
      temperature: Temperature T > 0, a scalar or [B]; gradients flow to T.

    Returns:
      Losses in nats times T^2, [B], at least float32.

    Raises:
      UsageError: There are fewer than 3 classes.
    """
    _check_classes(student_logits.shape[1])
    student = promote_to_float32(student_logits)
    teacher = promote_to_float32(jax.lax.stop_gradient(teacher_logits))
    temperature = jnp.asarray(temperature, student.dtype)
    divisor = jnp.reshape(temperature, (-1, 1))  # [B, 1] or [1, 1]
    label_difference, difference = _split_logits((student - teacher) / divisor, labels)
    label_logit, logits = _split_logits(teacher / divisor, labels)
    log_p = jax.nn.log_softmax(logits)
    others_part = compute_divergence(log_p, difference)
    # The logarithm of the summed exponentials of the other classes: the student's minus the teacher's.
    shift = (others_part + jnp.sum(jnp.exp(log_p) * difference, axis=1))[:, None]
    pair = jnp.concatenate([label_logit, jax.nn.logsumexp(logits, axis=1, keepdims=True)], axis=1)
    label_part = compute_divergence(
        jax.nn.log_softmax(pair), jnp.concatenate([label_difference, shift], axis=1)
    )
    return temperature**2 * (alpha * label_part + beta * others_part)


def make_objective(
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    warmup_epochs: float = 0.0,
    standardize: bool = False,
) -> Objective:
    """Makes the objective that learns the teacher's probability of the label and of other classes separately.

    Args:
      alpha: Weight of the part on the probability of the label.
      beta: Weight of the part on the probabilities of the other classes.
      temperature: Temperature T of both softmaxes, above 0.
      warmup_epochs: Number of epochs over which the weight rises linearly from 0; 0.0 for a constant weight.
      standardize: Whether both models' logits are scaled to mean 0 and deviation 1 first (Sun et al. 2024).

    Raises:
      UsageError: An option is out of range; or, from `init`, there are fewer than 3 classes.
    """
    check_temperature("dkd", temperature)
    check_warmup("dkd", warmup_epochs)
    for key, weight in (("alpha", alpha), ("beta", beta)):
        if not 0.0 <= weight < math.inf:
            raise UsageError(f"dkd.{key}={weight} must be 0 or more, and finite")

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        del key
        _check_classes(info.num_classes)
        return {}, {}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        student, teacher = select_logits(inputs, standardize)
        label = inputs.batch["label"]
        value = decoupled_kl(student, teacher, label, alpha=alpha, beta=beta, temperature=temperature)
        return value, (state, {})

    return Objective(init, loss, label="DKD", influence=Weighted(warmup_epochs), uses_teacher=True)
