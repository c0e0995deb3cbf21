"""The adversary behind a gradient reversal (Ganin & Lempitsky 2015, arXiv 1409.7495).

A small network tries to read the protected group from the student; the student receives its gradient
reversed and scaled by lambda, so it learns features that do not tell the group. Told the label as well
(`condition="label"`), the adversary only profits from what the features say about the group *within* a
class: equalized odds. Not told, it removes the group altogether: demographic parity (Zhang et al. 2018,
arXiv 1801.07593).
"""

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.balancing import balancing_weights, label_only_losses
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32
from fairkd_jax.objectives.perceptron import Perceptron
from fairkd_jax.ops import reverse_gradient
from fairkd_jax.types import Tree

CONDITIONS = ("label", "none")
SOURCES = ("embedding", "logits")
LAMBDA_MODES = ("weight", "ratio")


def ramp(progress: jax.Array, warmup: float) -> jax.Array:
    """Share of lambda that acts: 0 during the warm-up, then `2 / (1 + exp(-10 p)) - 1` (section 4.1).

    Args:
      progress: scalar in [0, 1].
      warmup: the share of the training in which the adversary learns while the student is left alone.

    Returns:
      Scalar in [0, 1), with p = (progress - warmup) / (1 - warmup) clipped to [0, 1].
    """
    p = jnp.clip((progress - warmup) / (1.0 - warmup), 0.0, 1.0)
    return 2.0 / (1.0 + jnp.exp(-10.0 * p)) - 1.0


def objective(
    *,
    condition: str = "label",
    source: str = "embedding",
    hidden: tuple[int, ...] = (128, 128),
    warmup: float = 0.1,
    balanced: bool = True,
    lambda_mode: str = "weight",
    projection: bool = False,
    steps: int = 1,
) -> Objective:
    """An adversary that reads the group from the student.

    Its metrics are its accuracy, and its *advantage*: how many nats it gains over a predictor that knows the
    label alone (or, without the condition, nothing). Accuracy says little by itself, since shares of the
    groups differ between classes.

    Args:
      condition: "label" (equalized odds) or "none" (demographic parity).
      source: "embedding" or "logits", what the adversary reads.
      hidden: widths of its hidden layers.
      warmup: share of the training in which lambda is 0, in [0, 1).
      balanced: whether groups are balanced within each class, by the training counts.
      lambda_mode: "weight": lambda is a factor of the adversary's gradient, in units that depend on all
        losses; "ratio": it is the norm of the adversary's pull on the embedding over that of all others'.
      projection: whether what of the others' gradient would help the adversary is taken out as well, over all
        parameters of the student (Zhang et al. 2018, equation 1), wherever lambda is above 0.
      steps: updates of the adversary for each one of the student.

    Raises:
      UsageError: an option is unknown or out of range; from `init`, where fewer than two groups are known.
    """
    _check(condition, source, hidden, warmup, lambda_mode, projection, steps)
    acts_by = "projection" if projection else "ratio" if lambda_mode == "ratio" else "reversal"

    def strength_of(inputs: Inputs) -> jax.Array:
        return inputs.strength * ramp(inputs.progress, warmup)

    def features_of(inputs: Inputs, strength: jax.Array, num_classes: int) -> jax.Array:
        student = inputs.student.embedding if source == "embedding" else inputs.student.logits
        features = reverse_gradient(at_least_float32(student), strength)
        if condition == "none":
            return features
        label = jax.nn.one_hot(inputs.batch["label"], num_classes, dtype=features.dtype)
        return jnp.concatenate([features, label], axis=1)

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        if np.count_nonzero(spec.group_counts.sum(axis=1)) < 2:
            raise UsageError("the adversary needs training images of at least two known groups")
        width = spec.student_width if source == "embedding" else spec.num_classes
        width += spec.num_classes if condition == "label" else 0
        reader = Perceptron(tuple(hidden), spec.num_groups)
        params = reader.init(key, jnp.zeros((1, width)))["params"]
        weights = balancing_weights(spec.group_counts) if balanced else np.ones(spec.group_counts.shape)
        baseline = label_only_losses(spec.group_counts, weights, condition == "label")
        state = {"weights": jnp.asarray(weights, jnp.float32), "baseline": jnp.asarray(baseline, jnp.float32)}
        return params, state

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        num_groups, num_classes = state["weights"].shape
        strength = strength_of(inputs)
        scale = strength if acts_by == "reversal" else jnp.ones_like(strength)
        features = features_of(inputs, scale, num_classes)
        reader = Perceptron(tuple(hidden), num_groups)
        logits = jnp.asarray(reader.apply({"params": params}, features))
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

    return Objective(
        init,
        loss,
        adversarial=True,
        acts_by=acts_by,
        strength=strength_of,
        extra_steps=steps - 1,
        debiases=True,
    )


def _check(
    condition: str,
    source: str,
    hidden: tuple[int, ...],
    warmup: float,
    lambda_mode: str,
    projection: bool,
    steps: int,
) -> None:
    """Raises UsageError where an option is unknown or out of range."""
    for key, value, known in (
        ("condition", condition, CONDITIONS),
        ("source", source, SOURCES),
        ("lambda_mode", lambda_mode, LAMBDA_MODES),
    ):
        if value not in known:
            raise UsageError(f"adversary.{key}={value!r} is unknown; one of {', '.join(known)}")
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UsageError(f"adversary.hidden={hidden} must be widths of layers, such as (128, 128)")
    if not 0.0 <= warmup < 1.0:
        raise UsageError(f"adversary.warmup={warmup} is not in [0, 1)")
    if projection and lambda_mode == "ratio":
        raise UsageError("adversary.projection takes lambda as a weight; leave out lambda_mode=ratio")
    if steps < 1:
        raise UsageError(f"adversary.steps={steps} must be at least 1")
