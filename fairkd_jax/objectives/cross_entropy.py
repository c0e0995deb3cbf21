"""Cross-entropy with the labels, with label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7).

A student may have a head for each group (Wang et al. 2020, arXiv 1911.11834, section 4.3). The loss of an
image is then the loss at the head of the image's group.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.balancing import compute_balancing_weights
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, TaskInfo, promote_to_float32
from fairkd_jax.types import GroupOutputs, Outputs, Tree


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Computes the cross-entropy of the softmax with smoothed one-hot labels.

    Args:
      logits: Logits, float [B, C].
      labels: Labels, int32 [B].
      label_smoothing: Probability that is spread evenly over all C classes, in [0, 1).

    Returns:
      Losses in nats, [B], at least float32.
    """
    log_probs = jax.nn.log_softmax(promote_to_float32(logits))
    picked = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * picked - label_smoothing * jnp.mean(log_probs, axis=1)


def select_group_logits(outputs: Outputs | GroupOutputs, group: jax.Array) -> jax.Array:
    """Returns the logits of the loss of the labels: from the head of the image's group, if there is one.

    Args:
      outputs: Outputs of B images.
      group: Groups, int32 [B]. Where the group is unknown (-1), the logits are the sum over all heads.

    Returns:
      Logits, float [B, C].
    """
    if not isinstance(outputs, GroupOutputs):
        return outputs.logits
    own = jnp.take_along_axis(outputs.group_logits, jnp.maximum(group, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where((group >= 0)[:, None], own, outputs.logits)


def make_objective(*, label_smoothing: float = 0.0, balanced: bool = False) -> Objective:
    """Makes the objective that learns from the labels.

    Args:
      label_smoothing: Probability that is spread evenly over all classes, in [0, 1).
      balanced: Whether all groups weigh the same within each class, by the training counts. The weight of a
        class stays, and an image of unknown group weighs 1.

    Raises:
      UsageError: `label_smoothing` is not in [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(f"label_smoothing={label_smoothing} is not in [0, 1)")

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        del key
        if not balanced:
            return {}, {}
        # A class without images of some of the G groups would else weigh less.
        present = np.maximum(np.count_nonzero(info.group_counts, axis=0), 1)
        weights = compute_balancing_weights(info.group_counts) * len(info.group_counts) / present
        return {}, {"weights": jnp.asarray(weights, jnp.float32)}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        label, group, mask = (inputs.batch[key] for key in ("label", "group", "mask"))
        correct = jnp.sum((jnp.argmax(inputs.student.logits, axis=1) == label) * mask)
        nats = softmax_cross_entropy(select_group_logits(inputs.student, group), label, label_smoothing)
        if balanced:
            weight = state["weights"][jnp.maximum(group, 0), label]
            nats = jnp.where(group >= 0, weight, 1.0) * nats
        return nats, (state, {"accuracy": (correct, jnp.sum(mask))})

    return Objective(init, loss, label="CE", is_task_loss=True)
