"""Cross-entropy with the labels, with label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, at_least_float32, stateless
from fairkd_jax.types import Tree


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of the softmax with smoothed one-hot labels.

    Args:
      logits: float [B, C].
      labels: int32 [B].
      label_smoothing: the probability that is spread evenly over all C classes, in [0, 1).

    Returns:
      [B], in nats, at least float32.
    """
    log_probs = jax.nn.log_softmax(at_least_float32(logits))
    picked = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * picked - label_smoothing * jnp.mean(log_probs, axis=1)


def objective(*, label_smoothing: float = 0.0) -> Objective:
    """Learning from the labels.

    Args:
      label_smoothing: see `softmax_cross_entropy`.

    Raises:
      UsageError: label_smoothing is not in [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(f"label_smoothing={label_smoothing} is not in [0, 1)")

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        logits, label, mask = inputs.student.logits, inputs.batch["label"], inputs.batch["mask"]
        correct = jnp.sum((jnp.argmax(logits, axis=1) == label) * mask)
        metrics = {"accuracy": (correct, jnp.sum(mask))}
        return softmax_cross_entropy(logits, label, label_smoothing), (state, metrics)

    return Objective(stateless, loss)
