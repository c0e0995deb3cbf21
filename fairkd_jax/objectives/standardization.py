"""Logit standardisation before distillation (Sun et al. 2024, arXiv 2403.01427, section 4.2).

Each model's logits are shifted and scaled to mean 0 and deviation 1 over the classes, so that the student
need not copy the range of the teacher's logits, only their order and proportions. An option of the methods
that compare softmaxes: CKD, CTKD and DKD.
"""

import jax
import jax.numpy as jnp

from fairkd_jax.objectives.base import Inputs, at_least_float32
from fairkd_jax.ops.geometry import safe_sqrt

# What the authors' code adds to the deviation.
EPSILON = 1e-7


def standardize(logits: jax.Array) -> jax.Array:
    """`(z - mean) / (1e-7 + deviation)` over the classes.

    Args:
      logits: float [B, C], C at least 2.

    Returns:
      [B, C], at least float32; 0 in rows of equal logits, where the deviation has gradient 0.
    """
    logits = at_least_float32(logits)
    # Where the compiler computes the mean of equal logits twice, rounded differently (by multiply-add), the
    # deviation may be 0 and the centred logits not. Of zeros, every mean is 0.
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=1, keepdims=True))
    centred = logits - jnp.mean(logits, axis=1, keepdims=True)
    # Of a sample, as torch computes it: divided by C - 1.
    variance = jnp.sum(centred**2, axis=1, keepdims=True) / (logits.shape[1] - 1)
    return centred / (EPSILON + safe_sqrt(variance))


def both_logits(inputs: Inputs, standardized: bool) -> tuple[jax.Array, jax.Array]:
    """The student's and the teacher's logits [B, C], standardised where that is asked for."""
    assert inputs.teacher is not None
    logits = (inputs.student.logits, inputs.teacher.logits)
    return (standardize(logits[0]), standardize(logits[1])) if standardized else logits
