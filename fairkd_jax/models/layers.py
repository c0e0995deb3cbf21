"""The layers EfficientNet is made of, with parameters in float32 and a compute dtype of their own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fairkd_jax.ops import depthwise_conv, patch_convolution
from fairkd_jax.ops.convolution import Padding


def fan_out_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with deviation sqrt(2 / fan_out), for kernels [..., in, out] (He et al. 2015, equation 14).

    Fan-out is the number of outputs times the kernel's area; a depthwise kernel [k, k, 1, C] feeds each input
    to one output channel, so that its fan-out is k * k.
    """
    *area, inputs, outputs = shape
    depthwise = len(area) == 2 and inputs == 1
    fan_out = (1 if depthwise else outputs) * (area[0] * area[1] if area else 1)
    return jax.random.normal(key, tuple(shape), dtype) * (2.0 / fan_out) ** 0.5


def classifier_uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform in +- 1 / sqrt(number of classes), for kernels [D, C]."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


class StemConv(nn.Module):
    """Convolution of an image: [B, H, W, 3] -> [B, H', W', features]; kernel [k, k, 3, features]."""

    features: int
    kernel_size: int
    stride: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal, shape)
        return patch_convolution(x, kernel, stride=self.stride, padding=self.padding)


class DepthwiseConv(nn.Module):
    """One filter per channel: [B, H, W, C] -> [B, H', W', C]; kernel [k, k, 1, C]."""

    kernel_size: int
    stride: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", fan_out_normal, shape)
        return depthwise_conv(x, kernel, stride=self.stride, padding=self.padding)


def pointwise_conv(features: int, *, dtype: Any, name: str, use_bias: bool = False) -> nn.Dense:
    """A 1x1 convolution, as the matrix product that it is: kernel [in, features]."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, kernel_init=fan_out_normal, name=name)


def spatial_mean(x: jax.Array) -> jax.Array:
    """Mean over the image, accumulated in float32: [B, H, W, C] -> float32 [B, C]."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
