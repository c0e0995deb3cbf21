"""BatchNorm in training form, with an optional swish after it and its own gradient.

XLA's own gradient sums over the batch within fusions that do other work, which its CPU backend hardly
vectorises. The neighbours (the padding of a depthwise convolution, the transposed operand of a weight
gradient) then compute the activation or its gradient again, element by element. Here every sum is an
operation of its own, and the results of the operation are stored. Milliseconds, value and gradient, on 2 busy
cores for (B, H = W, C) = (16, 64, 96), (16, 32, 144), (16, 8, 672):

  XLA's gradient               47, 12, 2.9
  this gradient                22,  6, 1.9
  sums as products with ones   53, 11, 2.5
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fairkd_jax.ops import native
from fairkd_jax.ops.platform import get_platform


def _force_store(x: Any) -> Any:
    """Keeps XLA's CPU backend from computing `x` again at each use; other platforms fuse well."""
    return lax.optimization_barrier(x) if get_platform() == "cpu" else x


def _average_channels(x: jax.Array) -> jax.Array:
    """Computes the mean over all axes but the last, in float32 or wider."""
    return jnp.mean(x, axis=tuple(range(x.ndim - 1)), dtype=jnp.promote_types(x.dtype, jnp.float32))


def batch_statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the mean and the biased variance of each channel in a single pass.

    Args:
      x: Activations, floating point [..., C].

    Returns:
      Mean and variance, each [C], in float32 or wider.
    """
    mean = _average_channels(x)
    wide = x.astype(mean.dtype)
    return mean, jnp.maximum(_average_channels(wide * wide) - mean * mean, 0.0)


def swish_gradient(z: jax.Array) -> jax.Array:
    """Computes the derivative of z * sigmoid(z), with the shape and dtype of `z`."""
    gate = jax.nn.sigmoid(z)
    return gate * (1.0 + z * (1.0 - gate))


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    swish: bool,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the batch's statistics (Ioffe and Szegedy 2015, algorithm 1).

    Args:
      x: Activations, floating point [..., C].
      scale: Scale, float32 [C].
      bias: Bias, float32 [C].
      epsilon: Number added to the variance.
      swish: Whether z * sigmoid(z) is applied to the result.
      implementation: "plain", "native" (kernels in C++: float32, a single CPU device), or None for the
        fastest one that serves these operands.

    Returns:
      The result, [..., C] in the dtype of `x`, and the mean and the biased variance, each [C] in float32 or
      wider. No gradient flows through mean and variance.

    Raises:
      ValueError: The implementation is unknown, or does not serve these operands.
    """
    name = implementation or ("native" if native.can_serve(x, scale, bias) else "plain")
    if name not in _IMPLEMENTATIONS:
        raise ValueError(f"implementation={name!r} is unknown; use one of {sorted(_IMPLEMENTATIONS)}")
    return _batch_norm(x, scale, bias, epsilon, swish, name)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, swish: bool, name: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _IMPLEMENTATIONS[name][0](x, scale, bias, epsilon, swish)


def _subtract_mean(x: jax.Array, mean: jax.Array) -> jax.Array:
    return x.astype(mean.dtype) - add_axes(mean, x)


def add_axes(channels: jax.Array, x: jax.Array) -> jax.Array:
    """Adds leading axes of length 1 to `channels`, [C], up to the number of axes of `x`, [..., C]."""
    return channels.reshape((1,) * (x.ndim - 1) + channels.shape)


def _plain_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, swish: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mean, variance = batch_statistics(x)
    z = _subtract_mean(x, mean) * add_axes(lax.rsqrt(variance + epsilon) * scale, x) + add_axes(bias, x)
    return _force_store((jax.nn.swish(z) if swish else z).astype(x.dtype)), mean, variance


def _plain_backward(
    swish: bool, residuals: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # The forward pass's intermediate values are computed again here instead of kept in memory.
    x, scale, bias, mean, inverse = _force_store(residuals)
    centred, factor = _subtract_mean(x, mean), inverse * scale
    dz = dy.astype(centred.dtype)
    if swish:
        dz = _force_store(dz * swish_gradient(centred * add_axes(factor, x) + add_axes(bias, x)))
    mean_dz = _average_channels(dz)
    # The mean of dz times the normalised x.
    mean_product = inverse * _average_channels(_force_store(dz * centred))
    dx = add_axes(factor, x) * (dz - add_axes(mean_dz, x) - centred * add_axes(inverse * mean_product, x))
    count = x.size // x.shape[-1]
    dscale, dbias = (count * mean_product).astype(scale.dtype), (count * mean_dz).astype(bias.dtype)
    return _force_store(dx.astype(x.dtype)), dscale, dbias


def _native_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, swish: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    like_x, channels = _to_shape_struct(x), _to_shape_struct(scale)
    options = {"epsilon": np.float32(epsilon), "swish": np.bool_(swish)}
    return native.call_kernel("batch_norm_forward", (like_x, channels, channels), x, scale, bias, **options)


def _native_backward(
    swish: bool, residuals: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    like_x, channels = _to_shape_struct(residuals[0]), _to_shape_struct(residuals[1])
    results = (like_x, channels, channels)
    return native.call_kernel("batch_norm_backward", results, *residuals, dy, swish=np.bool_(swish))


def _to_shape_struct(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


_IMPLEMENTATIONS: dict[str, tuple[Any, Any]] = {
    "plain": (_plain_forward, _plain_backward),
    "native": (_native_forward, _native_backward),
}


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, swish: bool, name: str
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    y, mean, variance = _batch_norm(x, scale, bias, epsilon, swish, name)
    return (y, mean, variance), (x, scale, bias, mean, lax.rsqrt(variance + epsilon))


def _backward(
    epsilon: float,
    swish: bool,
    name: str,
    residuals: tuple[jax.Array, ...],
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon  # already part of the inverse deviation
    return _IMPLEMENTATIONS[name][1](swish, residuals, cotangents[0])


_batch_norm.defvjp(_forward, _backward)
