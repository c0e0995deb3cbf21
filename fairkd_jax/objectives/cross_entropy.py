"""Cross-entropy with the labels, with label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7).

Where the student has a head for each group, an image's loss is that of its own group's (Wang et al. 2020,
arXiv 1911.11834, section 4.3).
"""

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.balancing import balancing_weights
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32
from fairkd_jax.types import GroupOutputs, Outputs, Tree


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


def own_logits(outputs: Outputs | GroupOutputs, group: jax.Array) -> jax.Array:
    """The logits that an image is trained with: of its group's head where there is one.

    Args:
      outputs: of B images.
      group: int32 [B], -1 where unknown: then the sum over the groups' heads.

    Returns:
      float [B, C].
    """
    if not isinstance(outputs, GroupOutputs):
        return outputs.logits
    own = jnp.take_along_axis(outputs.group_logits, jnp.maximum(group, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where((group >= 0)[:, None], own, outputs.logits)


def objective(*, label_smoothing: float = 0.0, balanced: bool = False) -> Objective:
    """Learning from the labels.

    Args:
      label_smoothing: see `softmax_cross_entropy`.
      balanced: whether groups weigh the same within each class, by the training counts (`balancing_weights`),
        and each class what it weighed before; an image of unknown group weighs 1.

    Raises:
      UsageError: label_smoothing is not in [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(f"label_smoothing={label_smoothing} is not in [0, 1)")

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        del key
        if not balanced:
            return {}, {}
        # Of G groups, a class that lacks some would weigh less.
        present = np.maximum(np.count_nonzero(spec.group_counts, axis=0), 1)
        weights = balancing_weights(spec.group_counts) * len(spec.group_counts) / present
        return {}, {"weights": jnp.asarray(weights, jnp.float32)}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        label, group, mask = (inputs.batch[key] for key in ("label", "group", "mask"))
        correct = jnp.sum((jnp.argmax(inputs.student.logits, axis=1) == label) * mask)
        nats = softmax_cross_entropy(own_logits(inputs.student, group), label, label_smoothing)
        if balanced:
            weight = state["weights"][jnp.maximum(group, 0), label]
            nats = jnp.where(group >= 0, weight, 1.0) * nats
        return nats, (state, {"accuracy": (correct, jnp.sum(mask))})

    return Objective(init, loss, task=True)
