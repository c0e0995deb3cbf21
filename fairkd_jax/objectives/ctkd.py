"""Curriculum temperature for distillation (CTKD, Li et al. 2023, arXiv 2211.16231).

CKD whose temperature is learnt against the student: the student descends the loss, and the temperature,
behind a gradient reversal, climbs it. The task gets harder as fast as the reversal's strength, which rises
along a cosine, lets it. While the temperature is high the loss grows as it falls: so it starts high, falls,
and settles.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32
from fairkd_jax.objectives.ckd import kl_divergence
from fairkd_jax.objectives.perceptron import Perceptron
from fairkd_jax.objectives.standardization import both_logits
from fairkd_jax.ops import reverse_gradient
from fairkd_jax.types import Tree

VARIANTS = ("global", "instance")


def temperature(
    parameter: jax.Array, strength: jax.Array | float, *, start: float = 1.0, range: float = 20.0
) -> jax.Array:
    """`start + range * sigmoid(parameter)`, the gradient to the parameter times `-strength` (equation 6).

    Args:
      parameter: float, a scalar or [B].
      strength: scalar, how strongly the temperature acts against the student; traced.
      start: the lower end of the temperature.
      range: from the lower to the upper end.

    Returns:
      Scalar or [B], at least float32, between start and start + range.
    """
    return start + range * jax.nn.sigmoid(reverse_gradient(at_least_float32(parameter), strength))


def reversal_strength(epoch: jax.Array | float, ramp_epochs: float) -> jax.Array:
    """`(1 - cos(pi min(epoch, E) / E)) / 2` (equation 8): from 0 to 1 in E epochs.

    Args:
      epoch: scalar, counted from 1 as the authors do; may be fractional and traced.
      ramp_epochs: E > 0.
    """
    share = jnp.minimum(jnp.asarray(epoch, jnp.result_type(epoch, jnp.float32)) / ramp_epochs, 1.0)
    return 0.5 * (1.0 - jnp.cos(jnp.pi * share))


def objective(
    *,
    variant: str = "global",
    start: float = 1.0,
    range: float = 20.0,
    initial: float = 1.0,
    ramp_epochs: float = 10.0,
    hidden: tuple[int, ...] = (256,),
    standardize: bool = False,
) -> Objective:
    """CKD at a learnt temperature, which is logged.

    Args:
      variant: "global" (one temperature) or "instance" (one for each image, from both models' logits by a
        perceptron; neither model gets a gradient through it).
      start: the lower end of the temperature, above 0.
      range: from the lower to the upper end, above 0.
      initial: the parameter before training, at which the temperature is `start + range * sigmoid(initial)`;
        the instance variant starts there too, for every image.
      ramp_epochs: the reversal's strength rises over so many epochs.
      hidden: widths of the perceptron's hidden layers.
      standardize: whether both models' logits are standardised first; see `standardization`.

    Raises:
      UsageError: an option is unknown or out of range.
    """
    if variant not in VARIANTS:
        raise UsageError(f"ctkd.variant={variant!r} is unknown; one of {', '.join(VARIANTS)}")
    for key, value in (("start", start), ("range", range), ("ramp_epochs", ramp_epochs)):
        if not 0.0 < value < math.inf:
            raise UsageError(f"ctkd.{key}={value} must be above 0 and finite")
    if not math.isfinite(initial):
        raise UsageError(f"ctkd.initial={initial} must be finite")
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UsageError(f"ctkd.hidden={hidden} must be widths of layers, such as (256,)")
    # The last layer starts at 0 and a bias of `initial`, so that every image starts at the same temperature.
    predictor = Perceptron(tuple(hidden), 1, nn.initializers.zeros_init())

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        parameter = jnp.full((), initial, jnp.float32)
        if variant == "global":
            return {"temperature": parameter}, {}
        params: Any = predictor.init(key, jnp.zeros((1, 2 * spec.num_classes)))["params"]
        return params | {"output": params["output"] | {"bias": parameter[None]}}, {}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        student, teacher = both_logits(inputs, standardize)
        strength = reversal_strength(inputs.epoch + 1.0, ramp_epochs)
        if variant == "global":
            parameter = params["temperature"]
        else:
            features = jax.lax.stop_gradient(jnp.concatenate([teacher, student], axis=1))
            parameter = jnp.asarray(predictor.apply({"params": params}, features))[:, 0]
        value = temperature(parameter, strength, start=start, range=range)
        mask = inputs.batch["mask"]
        metrics = {
            "temperature": (jnp.sum(jax.lax.stop_gradient(value) * mask), jnp.sum(mask)),
            "strength": (strength, jnp.ones_like(strength)),
        }
        return kl_divergence(student, teacher, value), (state, metrics)

    return Objective(init, loss, uses_teacher=True)
