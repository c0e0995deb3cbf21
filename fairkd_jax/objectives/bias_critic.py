"""A critic that predicts the batch's bias, after Savani et al. 2020 (arXiv 2006.08564, section 4.3).

A reproduction of an earlier study's objective as it was run. It is no method to recommend: what the critic
learns is the gap in recall between the groups *in one batch*, which is mostly noise (in 64 images, an
unbiased model shows a mean absolute gap of 0.39), and a sigmoid cannot reach the half of it that is negative.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32
from fairkd_jax.objectives.perceptron import Perceptron
from fairkd_jax.types import Tree

_CRITIC = Perceptron((256,), 1)
ESTIMATES = ("first", "mean")


def batch_bias(
    correct: jax.Array, label: jax.Array, group: jax.Array, mask: jax.Array, *, shape: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """The mean over classes of the batch's gap in recall between groups.

    Args:
      correct: [B], whether the student recognises the image.
      label: int32 [B].
      group: int32 [B], -1 where unknown: not counted.
      mask: float [B], 0 where a row does not count.
      shape: (G, C).

    Returns:
      The mean over classes with two groups in the batch of recall in group 0 minus in group 1 (with more than
      two groups, highest minus lowest), and how many classes these are.
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


def objective(*, epsilon: float = 0.05, margin: float = 0.01, estimate: str = "first") -> Objective:
    """Multiplies the loss of the labels by `max(1, lambda (|critic| - epsilon + margin) + 1)`.

    The critic, Linear(C, 256) - ReLU - Linear(256, 1) - sigmoid on the student's logits, learns by the
    squared error of every image's output to the batch's bias. The factor is differentiated through the
    critic, as in the published code. The critic's loss does not reach the student.

    Args:
      epsilon: the bias that is allowed.
      margin: how far below it the factor sets in.
      estimate: of the bias: the output for the "first" image of the batch, as it was run, or the "mean".

    Raises:
      UsageError: an option is unknown or out of range; from `init`, where fewer than two groups are known.
    """
    if estimate not in ESTIMATES:
        raise UsageError(f"bias_critic.estimate={estimate!r} is unknown; one of {', '.join(ESTIMATES)}")
    if not (0.0 <= epsilon <= 1.0 and 0.0 <= margin <= 1.0):
        raise UsageError(f"bias_critic.epsilon={epsilon} and margin={margin} must lie in [0, 1]")

    def criticise(params: Tree, logits: jax.Array) -> jax.Array:
        score: jax.Array = _CRITIC.apply({"params": params}, at_least_float32(logits))  # type: ignore[assignment]
        return jax.nn.sigmoid(score[:, 0])

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        if np.count_nonzero(spec.group_counts.sum(axis=1)) < 2:
            raise UsageError("bias_critic needs training images of at least two known groups")
        params = _CRITIC.init(key, jnp.zeros((1, spec.num_classes)))["params"]
        return params, {"cells": jnp.zeros(spec.group_counts.shape)}  # how many groups and classes there are

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        logits = jax.lax.stop_gradient(inputs.student.logits)
        label, group, mask = (inputs.batch[key] for key in ("label", "group", "mask"))
        correct = jnp.argmax(logits, axis=1) == label
        bias, classes = batch_bias(correct, label, group, mask, shape=state["cells"].shape)
        some = (classes > 0).astype(jnp.float32)
        metrics = {"batch_bias": (some * bias, some)}
        return some * (criticise(params, logits) - bias) ** 2, (state, metrics)

    def multiplier(params: Tree, inputs: Inputs) -> jax.Array:
        mask = inputs.batch["mask"]
        critic = criticise(params, inputs.student.logits)
        seen = critic[0] if estimate == "first" else jnp.sum(critic * mask) / jnp.maximum(jnp.sum(mask), 1.0)
        return jnp.maximum(1.0, inputs.strength * (jnp.abs(seen) - epsilon + margin) + 1.0)

    return Objective(init, loss, multiplier=multiplier, debiases=True)
