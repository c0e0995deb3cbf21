"""A critic that predicts the batch's bias, after Savani et al. 2020 (arXiv 2006.08564, section 4.3).

This objective reproduces an earlier study as the study was run. The method is not recommended. The critic
learns the gap in recall between the groups *in one batch*, which is mostly noise: in 64 images, an unbiased
model shows a mean absolute gap of 0.39. And a sigmoid cannot predict negative gaps, which are half of all
gaps.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Multiplier, Objective, TaskInfo, promote_to_float32
from fairkd_jax.objectives.mlp import MLP
from fairkd_jax.types import Tree

_CRITIC = MLP((256,), 1)
ESTIMATES = ("first", "mean")


def compute_batch_bias(
    correct: jax.Array, label: jax.Array, group: jax.Array, mask: jax.Array, *, shape: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Computes the batch's gap in recall between groups, as the mean over classes.

    Args:
      correct: Whether the student's prediction is right, [B].
      label: Labels, int32 [B].
      group: Groups, int32 [B]; an unknown group (-1) does not count.
      mask: Mask, float [B]; 0 where a row does not count.
      shape: Numbers of groups and classes, (G, C).

    Returns:
      The mean over the classes with at least two groups in the batch, and the number of these classes. The
      gap is the recall in group 0 minus the recall in group 1; with more than two groups, it is the highest
      recall minus the lowest recall.
    """
    known = (group >= 0) * (mask > 0)
    cell = (jnp.maximum(group, 0), label)
    total = jnp.zeros(shape).at[cell].add(known)
    recall = jnp.zeros(shape).at[cell].add(known * correct) / jnp.maximum(total, 1.0)
    comparable = jnp.sum(total > 0, axis=0) >= 2
    if shape[0] == 2:
        gap = recall[0] - recall[1]
    else:
        gap = jnp.max(jnp.where(total > 0, recall, 0.0), axis=0) - jnp.min(
            jnp.where(total > 0, recall, 1.0), axis=0
        )
    classes = jnp.sum(comparable)
    return jnp.sum(jnp.where(comparable, gap, 0.0)) / jnp.maximum(classes, 1), classes


def make_objective(
    *, epsilon: float = 0.05, margin: float = 0.01, estimate: str = "first", learning_rate: float = 1e-3
) -> Objective:
    """Makes the objective that multiplies the loss of the labels by a factor from a critic.

    The factor is `max(1, lambda (|critic| - epsilon + margin) + 1)`. The critic is Linear(C, 256) - ReLU -
    Linear(256, 1) - sigmoid on the student's logits. Its loss is the squared difference between the output
    for every image and the batch's bias. The factor is differentiated through the critic, as in the published
    code. The critic's loss does not reach the student.

    Args:
      epsilon: Bias that is allowed, in [0, 1].
      margin: Distance below `epsilon` at which the factor starts to rise, in [0, 1].
      estimate: Estimate of the bias: the critic's output for the "first" image of the batch, as in the
        study, or the "mean" output over the batch.
      learning_rate: Constant learning rate of the critic's optimizer.

    Raises:
      UsageError: An option is unknown or out of range; or, from `init`, fewer than two groups are known.
    """
    if estimate not in ESTIMATES:
        raise UsageError(f"bias_critic.estimate={estimate!r} is unknown; one of {', '.join(ESTIMATES)}")
    if not (0.0 <= epsilon <= 1.0 and 0.0 <= margin <= 1.0):
        raise UsageError(f"bias_critic.epsilon={epsilon} and margin={margin} must lie in [0, 1]")

    def predict_bias(params: Tree, logits: jax.Array) -> jax.Array:
        score: jax.Array = _CRITIC.apply({"params": params}, promote_to_float32(logits))  # type: ignore[assignment]
        return jax.nn.sigmoid(score[:, 0])

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        if np.count_nonzero(info.group_counts.sum(axis=1)) < 2:
            raise UsageError("bias_critic needs training images of at least two known groups")
        params = _CRITIC.init(key, jnp.zeros((1, info.num_classes)))["params"]
        return params, {"cells": jnp.zeros(info.group_counts.shape)}  # says the numbers of groups and classes

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        logits = jax.lax.stop_gradient(inputs.student.logits)
        label, group, mask = (inputs.batch[key] for key in ("label", "group", "mask"))
        correct = jnp.argmax(logits, axis=1) == label
        bias, classes = compute_batch_bias(correct, label, group, mask, shape=state["cells"].shape)
        some = (classes > 0).astype(jnp.float32)
        metrics = {"batch_bias": (some * bias, some)}
        return some * (predict_bias(params, logits) - bias) ** 2, (state, metrics)

    def compute_factor(params: Tree, inputs: Inputs) -> jax.Array:
        mask = inputs.batch["mask"]
        critic = predict_bias(params, inputs.student.logits)
        bias = critic[0] if estimate == "first" else jnp.sum(critic * mask) / jnp.maximum(jnp.sum(mask), 1.0)
        return jnp.maximum(1.0, inputs.strength * (jnp.abs(bias) - epsilon + margin) + 1.0)

    return Objective(
        init,
        loss,
        label="bias critic",
        influence=Multiplier(compute_factor),
        learning_rate=learning_rate,
        debiases=True,
    )
