"""Folding of BatchNorm: the scale goes into the convolution before the norm, the shift becomes a bias."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_NORM, _CONVOLUTION = "_bn", "_conv"


def fold_batch_norms(
    params: Mapping[str, Any], statistics: Mapping[str, Any], epsilon: float, dtype: jnp.dtype
) -> dict[str, Any]:
    """Multiplies the scale of each BatchNorm into the kernel before it, and turns its shift into a bias.

    With kernel w, statistics m and v, and parameters s and b: (w x - m) s / sqrt(v + e) + b is w' x + b'.

    Args:
      params: Parameters, float32, in which `NAME_bn` follows the convolution `NAME_conv` without a bias.
      statistics: Running statistics "mean" and "var" of each norm, float32 [C], under the same names.
      epsilon: Number e, which the norms add to the variance.
      dtype: Dtype of the folded kernels.

    Returns:
      The parameters with kernels in `dtype` and, for each norm, a bias in float32; all others are unchanged.
    """
    result = {}
    for name, value in params.items():
        if name.endswith(_NORM):
            factor = _compute_factor(value, statistics[name], epsilon)
            result[name] = {"bias": value["bias"] - statistics[name]["mean"] * factor}
        elif name.endswith(_CONVOLUTION):
            norm = name.removesuffix(_CONVOLUTION) + _NORM
            factor = _compute_factor(params[norm], statistics[norm], epsilon)
            kernel = value["kernel"]
            kernel = kernel * factor.reshape((1,) * (kernel.ndim - 1) + factor.shape)
            result[name] = {"kernel": kernel.astype(dtype)}
        elif name in statistics:
            result[name] = fold_batch_norms(value, statistics[name], epsilon, dtype)
        else:
            result[name] = value
    return result


def _compute_factor(
    norm: Mapping[str, jax.Array], statistics: Mapping[str, jax.Array], epsilon: float
) -> jax.Array:
    return norm["scale"] * jax.lax.rsqrt(statistics["var"] + epsilon)
