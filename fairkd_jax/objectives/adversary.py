"""The adversary behind a gradient reversal (Ganin & Lempitsky 2015, arXiv 1409.7495).

A small network learns to predict the protected group from the student's features. The student receives the
network's gradient reversed and scaled by lambda, and so learns features without the group. With the label as
a further input (`condition="label"`), the adversary gains only from differences between groups *within* a
class: equalized odds. Without the label, the adversary removes the group altogether: demographic parity
(Zhang et al. 2018, arXiv 1801.07593).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.balancing import compute_balancing_weights, compute_label_only_losses
from fairkd_jax.objectives.base import (
    Influence,
    Inputs,
    Metrics,
    Objective,
    Projection,
    Ratio,
    Reversal,
    TaskInfo,
    promote_to_float32,
)
from fairkd_jax.objectives.mlp import MLP
from fairkd_jax.ops import reverse_gradient
from fairkd_jax.types import Tree

CONDITIONS = ("label", "none")
SOURCES = ("embedding", "logits")
LAMBDA_MODES = ("weight", "ratio")


def compute_ramp(progress: jax.Array, warmup: float) -> jax.Array:
    """Computes the active share of lambda: 0 in the warm-up, then `2 / (1 + exp(-10 p)) - 1` (section 4.1).

    Args:
      progress: Fraction of the training that is done, a scalar in [0, 1].
      warmup: Fraction of the training in which the adversary learns and the student is not affected.

    Returns:
      A scalar in [0, 1), with p = (progress - warmup) / (1 - warmup) clipped to [0, 1].
    """
    p = jnp.clip((progress - warmup) / (1.0 - warmup), 0.0, 1.0)
    return 2.0 / (1.0 + jnp.exp(-10.0 * p)) - 1.0


@dataclass(frozen=True)
class _Adversary:
    """The options of an adversary, with its functions.

    Attributes:
      condition: "label" or "none".
      source: "embedding" or "logits".
      hidden: Widths of the hidden layers.
      warmup: Fraction of the training in which lambda is 0.
      balanced: Whether groups weigh the same within each class.
      scales_gradient: Whether the loss scales the reversed gradient by lambda; otherwise the step does.
    """

    condition: str
    source: str
    hidden: tuple[int, ...]
    warmup: float
    balanced: bool
    scales_gradient: bool

    def compute_strength(self, inputs: Inputs) -> jax.Array:
        """Computes lambda at a step, a scalar."""
        return inputs.strength * compute_ramp(inputs.progress, self.warmup)

    def init(self, key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        """Makes the network's parameters, and the weights and baseline losses of all cells, [G, C]."""
        if np.count_nonzero(info.group_counts.sum(axis=1)) < 2:
            raise UsageError("the adversary needs training images of at least two known groups")
        width = info.student_width if self.source == "embedding" else info.num_classes
        width += info.num_classes if self.condition == "label" else 0
        network = MLP(self.hidden, info.num_groups)
        params = network.init(key, jnp.zeros((1, width)))["params"]
        counts = info.group_counts
        weights = compute_balancing_weights(counts) if self.balanced else np.ones(counts.shape)
        baseline = compute_label_only_losses(counts, weights, self.condition == "label")
        state = {"weights": jnp.asarray(weights, jnp.float32), "baseline": jnp.asarray(baseline, jnp.float32)}
        return params, state

    def compute_loss(
        self, params: Tree, state: Tree, inputs: Inputs
    ) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        """Computes the weighted cross-entropy of the group, a scalar in nats, with the state and metrics."""
        num_groups, num_classes = state["weights"].shape
        strength = self.compute_strength(inputs)
        scale = strength if self.scales_gradient else jnp.ones_like(strength)
        features = self._make_features(inputs, scale, num_classes)
        logits = jnp.asarray(MLP(self.hidden, num_groups).apply({"params": params}, features))
        group, label = inputs.batch["group"], inputs.batch["label"]
        known = (group >= 0) * inputs.batch["mask"]
        group = jnp.maximum(group, 0)
        nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), group[:, None], axis=1)[:, 0]
        weight = state["weights"][group, label] * known
        total = jnp.sum(weight)
        gain = jnp.sum(weight * (state["baseline"][group, label] - nats))
        metrics = {
            "advantage": (jax.lax.stop_gradient(gain), total),
            "accuracy": (jnp.sum((jnp.argmax(logits, axis=1) == group) * known), jnp.sum(known)),
            "strength": (strength, jnp.ones_like(strength)),
        }
        return jnp.sum(weight * nats) / jnp.where(total > 0, total, 1.0), (state, metrics)

    def _make_features(self, inputs: Inputs, scale: jax.Array, num_classes: int) -> jax.Array:
        """Makes the network's input, whose gradient reaches the student reversed and times `scale`."""
        student = inputs.student.embedding if self.source == "embedding" else inputs.student.logits
        features = reverse_gradient(promote_to_float32(student), scale)
        if self.condition == "none":
            return features
        label = jax.nn.one_hot(inputs.batch["label"], num_classes, dtype=features.dtype)
        return jnp.concatenate([features, label], axis=1)


def make_objective(
    *,
    condition: str = "label",
    source: str = "embedding",
    hidden: tuple[int, ...] = (128, 128),
    warmup: float = 0.1,
    balanced: bool = True,
    lambda_mode: str = "weight",
    projection: bool = False,
    steps: int = 1,
    learning_rate: float = 1e-2,
) -> Objective:
    """Makes the objective of an adversary that predicts the group from the student's features.

    The metrics are the adversary's accuracy and its *advantage*: the gain in nats over a predictor that knows
    the label alone (or nothing, with `condition="none"`). The accuracy alone says little, since the shares of
    the groups differ between classes.

    Args:
      condition: Condition of the adversary: "label" (equalized odds) or "none" (demographic parity).
      source: Input of the adversary: the student's "embedding" or "logits".
      hidden: Widths of the adversary's hidden layers.
      warmup: Fraction of the training in which lambda is 0, in [0, 1).
      balanced: Whether all groups weigh the same within each class, by the training counts.
      lambda_mode: Meaning of lambda. With "weight", lambda is a factor of the adversary's gradient, in units
        that depend on all losses. With "ratio", lambda is the norm of the adversary's gradient at the
        embedding, divided by the norm of the gradient of all other objectives.
      projection: Whether to remove from the other objectives' gradient the part that would help the
        adversary. The removal covers all parameters of the student, wherever lambda is above 0 (Zhang et al.
        2018, equation 1).
      steps: Number of updates of the adversary for each update of the student.
      learning_rate: Constant learning rate of the adversary's optimizer, high enough to follow the student.

    Raises:
      UsageError: An option is unknown or out of range; or, from `init`, fewer than two groups are known.
    """
    _check_choices(condition, source, lambda_mode)
    _check_ranges(hidden, warmup, steps)
    if projection and lambda_mode == "ratio":
        raise UsageError("adversary.projection takes lambda as a weight; leave out lambda_mode=ratio")
    scales_gradient = not projection and lambda_mode == "weight"
    adversary = _Adversary(condition, source, tuple(hidden), warmup, balanced, scales_gradient)
    influence: Influence = Reversal(steps - 1)
    if projection:
        influence = Projection(adversary.compute_strength, steps - 1)
    elif lambda_mode == "ratio":
        influence = Ratio(adversary.compute_strength, steps - 1)
    return Objective(
        adversary.init,
        adversary.compute_loss,
        label="adversary",
        influence=influence,
        learning_rate=learning_rate,
        debiases=True,
    )


def _check_choices(condition: str, source: str, lambda_mode: str) -> None:
    """Raises UsageError where an option is unknown."""
    for key, value, known in (
        ("condition", condition, CONDITIONS),
        ("source", source, SOURCES),
        ("lambda_mode", lambda_mode, LAMBDA_MODES),
    ):
        if value not in known:
            raise UsageError(f"adversary.{key}={value!r} is unknown; one of {', '.join(known)}")


def _check_ranges(hidden: tuple[int, ...], warmup: float, steps: int) -> None:
    """Raises UsageError where a number is out of range."""
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UsageError(f"adversary.hidden={hidden} must be widths of layers, such as (128, 128)")
    if not 0.0 <= warmup < 1.0:
        raise UsageError(f"adversary.warmup={warmup} is not in [0, 1)")
    if steps < 1:
        raise UsageError(f"adversary.steps={steps} must be at least 1")
