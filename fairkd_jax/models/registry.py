"""Names to networks."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.models.architecture import ARCHITECTURES, Architecture
from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.types import Tree

MODEL_NAMES: tuple[str, ...] = tuple(ARCHITECTURES)


def _architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise UsageError(f"model {name!r} is unknown; use one of {', '.join(MODEL_NAMES)}")
    return ARCHITECTURES[name]


def _check_rate(key: str, rate: float) -> float:
    if not 0.0 <= rate < 1.0:
        raise UsageError(f"{key}={rate} is not a probability below 1; use a number in [0, 1)")
    return rate


def create_model(
    name: str,
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    dropout_rate: float | None = None,
    stochastic_depth_rate: float | None = None,
    frozen_norm: bool = False,
    norm_momentum: float | None = None,
    rematerialize: bool = False,
    group_heads: int = 0,
) -> EfficientNet:
    """Builds a network by its name.

    Args:
      name: `efficientnet_b0` to `_b7` (symmetric padding, epsilon 1e-5: torchvision, timm),
        `tf_efficientnet_b0` to `_b7` (SAME padding, epsilon 1e-3: TensorFlow, Keras), or
        `efficientnet_tiny` and `efficientnet_mini` for 32 px images.
      num_classes: Width of the logits, at least 2.
      dtype: Compute dtype, float32 or bfloat16.
      dropout_rate: None for the rate that belongs to the name.
      stochastic_depth_rate: The same, for the rate of the deepest block.
      frozen_norm: Whether BatchNorm keeps its running statistics, and uses them, in training too.
      norm_momentum: Share of BatchNorm's old running statistics that a step keeps; None for the share that
        belongs to the name.
      rematerialize: Whether the gradient computes each block again rather than keep what is inside it.
      group_heads: The number of groups where each has a head of its own; 0 for one head.

    Returns:
      A module; `.apply(variables, images, train=False)` gives `Outputs`.

    Raises:
      UsageError: If the name is unknown or a number out of range.
    """
    architecture = _architecture(name)
    if num_classes < 2:
        raise UsageError(f"num_classes={num_classes} leaves nothing to tell apart; use 2 or more")
    if group_heads < 0 or group_heads == 1:
        raise UsageError(f"group_heads={group_heads} tells no groups apart; use 2 or more, or 0 for one head")
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise UsageError(f"dtype {jnp.dtype(dtype).name} is not supported; use float32 or bfloat16")
    if dropout_rate is not None:
        architecture = replace(architecture, dropout_rate=_check_rate("dropout_rate", dropout_rate))
    if stochastic_depth_rate is not None:
        rate = _check_rate("stochastic_depth_rate", stochastic_depth_rate)
        architecture = replace(architecture, stochastic_depth_rate=rate)
    if norm_momentum is not None:
        architecture = replace(architecture, bn_momentum=_check_rate("norm_momentum", norm_momentum))
    return EfficientNet(
        architecture,
        num_classes,
        dtype=jnp.dtype(dtype),
        frozen_norm=frozen_norm,
        rematerialize=rematerialize,
        group_heads=group_heads,
    )


def image_size(name: str) -> int:
    """The resolution that a network was designed for, in pixels."""
    return _architecture(name).image_size


def num_parameters(params: Tree) -> int:
    """Number of scalars in a tree of arrays or of shapes, such as `variables["params"]`."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
