"""Logit standardization before distillation (Sun et al. 2024, arXiv 2403.01427, section 4.2).

Each model's logits are shifted and scaled to mean 0 and standard deviation 1 over the classes. The student
then copies the order and the proportions of the teacher's logits, but not their range. Standardization is an
option of the methods that compare softmaxes: CKD, CTKD and DKD.
"""

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, promote_to_float32
from fairkd_jax.ops.geometry import safe_sqrt

# The authors' code adds this constant to the deviation.
EPSILON = 1e-7


def standardize(logits: jax.Array) -> jax.Array:
    """Computes `(z - mean) / (1e-7 + deviation)` over the classes.

    Args:
      logits: Logits, float [B, C], C at least 2.

    Returns:
      Standardized logits [B, C], at least float32. Rows of equal logits give 0, and there the deviation has
      gradient 0.
    """
    logits = promote_to_float32(logits)
    # The compiler may compute the mean of equal logits twice and round each mean differently (by
    # multiply-add). The deviation is then 0, but the centered logits are not. The mean of zeros is always 0.
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=1, keepdims=True))
    centered = logits - jnp.mean(logits, axis=1, keepdims=True)
    # The sample variance, as torch computes it: divided by C - 1.
    variance = jnp.sum(centered**2, axis=1, keepdims=True) / (logits.shape[1] - 1)
    return centered / (EPSILON + safe_sqrt(variance))


def check_standardizable(name: str, num_classes: int) -> None:
    """Checks that standardized logits can carry something.

    Of two classes they are always -0.71 and 0.71, in one order or the other, so that no gradient is left.

    Args:
      name: Name of the objective.
      num_classes: Number C of classes.

    Raises:
      UsageError: There are fewer than 3 classes.
    """
    if num_classes < 3:
        raise UsageError(
            f"{name}.standardize=True needs at least 3 classes, not {num_classes}: of two classes,"
            f" standardized logits are the same for all images; use {name}.standardize=False"
        )


def select_logits(inputs: Inputs, standardized: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the student's and the teacher's logits [B, C], standardized on request."""
    assert inputs.teacher is not None
    logits = (inputs.student.logits, inputs.teacher.logits)
    return (standardize(logits[0]), standardize(logits[1])) if standardized else logits
