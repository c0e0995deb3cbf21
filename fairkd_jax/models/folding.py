"""A network that only infers: each BatchNorm is part of the convolution before it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.types import Tree

_NORM, _CONVOLUTION = "_bn", "_conv"


def fold(model: EfficientNet, variables: Mapping[str, Tree]) -> tuple[EfficientNet, dict[str, Tree]]:
    """Multiplies the scale of each BatchNorm into the kernel before it; its shift becomes a bias.

    With kernel w, statistics m and v, and parameters s and b: (w x - m) s / sqrt(v + e) + b is w' x + b'.

    Args:
      model: in its training form.
      variables: its parameters and statistics, float32.

    Returns:
      The model that takes the folded variables, and these: kernels in the model's compute dtype, biases and
      the head in float32. It infers the same up to rounding, and cannot be trained.
    """
    params = _folded(
        variables["params"], variables["batch_stats"], model.architecture.bn_epsilon, jnp.dtype(model.dtype)
    )
    return model.clone(folded=True), {"params": params}


def _folded(params: Any, statistics: Mapping[str, Any], epsilon: float, dtype: jnp.dtype) -> dict[str, Any]:
    result = {}
    for name, value in params.items():
        if name.endswith(_NORM):
            factor = _factor(value, statistics[name], epsilon)
            result[name] = {"bias": value["bias"] - statistics[name]["mean"] * factor}
        elif name.endswith(_CONVOLUTION):
            norm = name.removesuffix(_CONVOLUTION) + _NORM
            factor = _factor(params[norm], statistics[norm], epsilon)
            kernel = value["kernel"]
            kernel = kernel * factor.reshape((1,) * (kernel.ndim - 1) + factor.shape)
            result[name] = {"kernel": kernel.astype(dtype)}
        elif name in statistics:
            result[name] = _folded(value, statistics[name], epsilon, dtype)
        else:
            result[name] = value
    return result


def _factor(norm: Mapping[str, jax.Array], statistics: Mapping[str, jax.Array], epsilon: float) -> jax.Array:
    return norm["scale"] * jax.lax.rsqrt(statistics["var"] + epsilon)
