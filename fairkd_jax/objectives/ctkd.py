"""Curriculum temperature for distillation (CTKD, Li et al. 2023, arXiv 2211.16231).

The method is CKD with a temperature that learns against the student. The student descends the loss; the
temperature, behind a gradient reversal, ascends the loss. The strength of the reversal rises along a cosine,
and the task becomes harder at that speed. At a high temperature, the loss grows when the temperature falls.
So the temperature starts high, falls, and settles.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, TaskInfo, promote_to_float32
from fairkd_jax.objectives.ckd import kl_divergence
from fairkd_jax.objectives.mlp import MLP
from fairkd_jax.objectives.standardization import check_standardizable, select_logits
from fairkd_jax.ops import reverse_gradient
from fairkd_jax.types import Tree

VARIANTS = ("global", "instance")


def temperature(
    parameter: jax.Array, strength: jax.Array | float, *, start: float = 1.0, range: float = 20.0
) -> jax.Array:
    """Computes `start + range * sigmoid(parameter)`, with the gradient times `-strength` (equation 6).

    Args:
      parameter: Parameter of the temperature, float, a scalar or [B].
      strength: Factor of the reversed gradient, a traced scalar.
      start: Lower bound of the temperature.
      range: Difference between the upper and the lower bound.

    Returns:
      The temperature between `start` and `start + range`, a scalar or [B], at least float32.
    """
    return start + range * jax.nn.sigmoid(reverse_gradient(promote_to_float32(parameter), strength))


def reversal_strength(epoch: jax.Array | float, ramp_epochs: float) -> jax.Array:
    """Computes `(1 - cos(pi min(epoch, E) / E)) / 2`, which rises from 0 to 1 in E epochs (equation 8).

    Args:
      epoch: Epoch, a scalar, counted from 1 as the authors do; may be fractional and traced.
      ramp_epochs: Number E of epochs, above 0.

    Returns:
      The strength, a scalar in [0, 1], at least float32.
    """
    share = jnp.minimum(jnp.asarray(epoch, jnp.result_type(epoch, jnp.float32)) / ramp_epochs, 1.0)
    return 0.5 * (1.0 - jnp.cos(jnp.pi * share))


def make_objective(
    *,
    variant: str = "global",
    start: float = 1.0,
    range: float = 20.0,
    initial: float = 1.0,
    ramp_epochs: float = 10.0,
    hidden: tuple[int, ...] = (256,),
    standardize: bool = False,
    decay: bool = True,
) -> Objective:
    """Makes the objective of CKD at a learned temperature, which is logged.

    Args:
      variant: Number of temperatures: "global" for a single temperature, or "instance" for one temperature
        per image. A perceptron predicts the latter from both models' logits, without a gradient to the
        models.
      start: Lower bound of the temperature, above 0.
      range: Difference between the upper and the lower bound of the temperature, above 0.
      initial: Parameter before training; every temperature starts at `start + range * sigmoid(initial)`.
      ramp_epochs: Number of epochs over which the strength of the reversed gradient rises to 1.
      hidden: Widths of the hidden layers of the perceptron of "instance".
      standardize: Whether both models' logits are scaled to mean 0 and deviation 1 first (Sun et al. 2024).
      decay: Whether weight decay acts on the parameters of the temperature: all of them, or none.

    Raises:
      UsageError: An option is unknown or out of range; or, from `init`, there are fewer than 3 classes to
        standardize.
    """
    _check_variant(variant, hidden)
    _check_temperature(start, range, initial, ramp_epochs)
    # The last layer starts with kernel 0 and bias `initial`: every image starts at the same temperature.
    predictor = MLP(tuple(hidden), 1, nn.initializers.zeros_init())

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        if standardize:
            check_standardizable("ctkd", info.num_classes)
        parameter = jnp.full((), initial, jnp.float32)
        if variant == "global":
            return {"temperature": parameter}, {}
        params: Any = predictor.init(key, jnp.zeros((1, 2 * info.num_classes)))["params"]
        return params | {"output": params["output"] | {"bias": parameter[None]}}, {}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        student, teacher = select_logits(inputs, standardize)
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

    return Objective(init, loss, label="CTKD", decay="all" if decay else "none", uses_teacher=True)


def _check_variant(variant: str, hidden: tuple[int, ...]) -> None:
    """Checks the variant, and the layers of the perceptron."""
    if variant not in VARIANTS:
        raise UsageError(f"ctkd.variant={variant!r} is unknown; one of {', '.join(VARIANTS)}")
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UsageError(f"ctkd.hidden={hidden} must be widths of layers, such as (256,)")


def _check_temperature(start: float, range: float, initial: float, ramp_epochs: float) -> None:
    """Checks the options of the temperature and of the reversal's strength."""
    for key, value in (("start", start), ("range", range), ("ramp_epochs", ramp_epochs)):
        if not 0.0 < value < math.inf:
            raise UsageError(f"ctkd.{key}={value} must be above 0 and finite")
    if not math.isfinite(initial):
        raise UsageError(f"ctkd.initial={initial} must be finite")
