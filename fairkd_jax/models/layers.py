"""The layers EfficientNet is made of, with parameters in float32 and a compute dtype of their own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fairkd_jax.ops import batch_norm, depthwise_conv, patch_convolution, pointwise
from fairkd_jax.ops.convolution import Padding
from fairkd_jax.ops.normalization import over


def fan_out_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with deviation sqrt(2 / fan_out), for kernels [..., in, out] (He et al. 2015, equation 14).

    Fan-out is the number of outputs times the kernel's area; a depthwise kernel [k, k, 1, C] feeds each input
    to one output channel, so that its fan-out is k * k.
    """
    *area, inputs, outputs = shape
    depthwise = len(area) == 2 and inputs == 1
    fan_out = (1 if depthwise else outputs) * (area[0] * area[1] if area else 1)
    return jax.random.normal(key, tuple(shape), dtype) * (2.0 / fan_out) ** 0.5


def classifier_uniform(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *, heads: int = 1
) -> jax.Array:
    """Uniform in +- 1 / sqrt(number of classes), for kernels [D, C], or [D, heads C] of several heads."""
    bound = (shape[-1] // heads) ** -0.5
    return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


class BatchNorm(nn.Module):
    """BatchNorm, and the swish behind it where there is one: [..., C] -> [..., C].

    Variables as of `flax.linen.BatchNorm`: parameters `scale` and `bias`, statistics `mean` and `var`.

    Attributes:
      train: Whether to use the batch's statistics, and to follow them.
      momentum: Share of the old running statistics that is kept.
      epsilon: Added to the variance.
      swish: Whether the result goes through z * sigmoid(z).
    """

    train: bool
    momentum: float
    epsilon: float
    swish: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if not self.train:
            factor = jax.lax.rsqrt(variance.value + self.epsilon) * scale
            z = (x - over(mean.value, x)) * over(factor, x) + over(bias, x)
            return (nn.swish(z) if self.swish else z).astype(x.dtype)
        y, batch_mean, batch_variance = batch_norm(x, scale, bias, self.epsilon, self.swish)
        if not self.is_initializing():
            kept = self.momentum
            mean.value = kept * mean.value + (1.0 - kept) * batch_mean
            variance.value = kept * variance.value + (1.0 - kept) * batch_variance
        return y


class Shift(nn.Module):
    """What is left of a BatchNorm that was folded into its convolution: a bias, and the swish behind it.

    Attributes:
      swish: Whether the result goes through z * sigmoid(z).
    """

    swish: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        z = x + over(bias, x)
        return (nn.swish(z) if self.swish else z).astype(x.dtype)


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


class PointwiseConv(nn.Module):
    """A 1x1 convolution: [..., I] -> [..., features], in the dtype of its input; kernel [I, features]."""

    features: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = pointwise(x, self.param("kernel", fan_out_normal, (x.shape[-1], self.features)))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + over(bias, y).astype(y.dtype)


def spatial_mean(x: jax.Array) -> jax.Array:
    """Mean over the image, accumulated in float32: [B, H, W, C] -> float32 [B, C]."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
