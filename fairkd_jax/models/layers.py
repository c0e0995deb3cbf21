"""Layers of EfficientNet: parameters in float32, computation in the dtype of the input."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fairkd_jax.ops import batch_norm, depthwise_conv, patch_convolution, pointwise_conv
from fairkd_jax.ops.convolution import Padding
from fairkd_jax.ops.normalization import add_axes


def draw_fan_out_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Draws a kernel from the normal distribution with deviation sqrt(2 / fan_out).

    The source is He et al. 2015, equation 14. Fan-out is the number of outputs times the kernel's area. A
    depthwise kernel [k, k, 1, C] feeds each input to a single output channel, so that its fan-out is k * k.

    Args:
      key: Random key.
      shape: Shape of the kernel, [..., in, out].
      dtype: Dtype of the kernel.

    Returns:
      The kernel.
    """
    *area, inputs, outputs = shape
    depthwise = len(area) == 2 and inputs == 1
    fan_out = (1 if depthwise else outputs) * (area[0] * area[1] if area else 1)
    return jax.random.normal(key, tuple(shape), dtype) * (2.0 / fan_out) ** 0.5


def draw_classifier_uniform(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *, heads: int = 1
) -> jax.Array:
    """Draws a head's kernel from the uniform distribution in +- 1 / sqrt(number of classes).

    Args:
      key: Random key.
      shape: Shape of the kernel, [D, C]; [D, heads C] for several heads side by side.
      dtype: Dtype of the kernel.
      heads: Number of heads.

    Returns:
      The kernel.
    """
    bound = (shape[-1] // heads) ** -0.5
    return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


class BatchNorm(nn.Module):
    """BatchNorm with an optional swish after it: [..., C] -> [..., C].

    The variables are those of `flax.linen.BatchNorm`: parameters `scale` and `bias`, statistics `mean` and
    `var`.

    Attributes:
      train: Whether to normalise by the batch's statistics, and to update the running ones.
      momentum: Share of the old running statistics that is kept at each step.
      epsilon: Number added to the variance.
      swish: Whether z * sigmoid(z) is applied to the result.
    """

    train: bool
    momentum: float
    epsilon: float
    swish: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the channels of `x`, floating point [..., C]."""
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if not self.train:
            factor = jax.lax.rsqrt(variance.value + self.epsilon) * scale
            z = (x - add_axes(mean.value, x)) * add_axes(factor, x) + add_axes(bias, x)
            return (nn.swish(z) if self.swish else z).astype(x.dtype)
        y, batch_mean, batch_variance = batch_norm(x, scale, bias, self.epsilon, self.swish)
        if not self.is_initializing():
            kept = self.momentum
            mean.value = kept * mean.value + (1.0 - kept) * batch_mean
            variance.value = kept * variance.value + (1.0 - kept) * batch_variance
        return y


class Shift(nn.Module):
    """Bias of a BatchNorm that was folded into its convolution, with an optional swish after it.

    Attributes:
      swish: Whether z * sigmoid(z) is applied to the result.
    """

    swish: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds the bias to `x`, floating point [..., C]."""
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        z = x + add_axes(bias, x)
        return (nn.swish(z) if self.swish else z).astype(x.dtype)


class StemConv(nn.Module):
    """Convolution of an image: [B, H, W, 3] -> [B, H', W', features].

    Attributes:
      features: Channels of the output.
      kernel_size: Side k of the kernel [k, k, 3, features].
      stride: Stride in both directions.
      padding: Padding convention; see `ops.convolution.resolve_padding`.
    """

    features: int
    kernel_size: int
    stride: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves images, floating point [B, H, W, 3]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", draw_fan_out_normal, shape)
        return patch_convolution(x, kernel, stride=self.stride, padding=self.padding)


class DepthwiseConv(nn.Module):
    """Convolution with a filter for each channel: [B, H, W, C] -> [B, H', W', C].

    Attributes:
      kernel_size: Side k of the kernel [k, k, 1, C].
      stride: Stride in both directions.
      padding: Padding convention; see `ops.convolution.resolve_padding`.
    """

    kernel_size: int
    stride: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves each channel of `x`, floating point [B, H, W, C]."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", draw_fan_out_normal, shape)
        return depthwise_conv(x, kernel, stride=self.stride, padding=self.padding)


class PointwiseConv(nn.Module):
    """Convolution of 1x1 pixels in the dtype of the input: [..., I] -> [..., features].

    Attributes:
      features: Channels of the output; the kernel is [I, features].
      use_bias: Whether a bias [features] is added.
    """

    features: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Mixes the channels of `x`, floating point [..., I]."""
        y = pointwise_conv(x, self.param("kernel", draw_fan_out_normal, (x.shape[-1], self.features)))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + add_axes(bias, y).astype(y.dtype)


def average_pixels(x: jax.Array) -> jax.Array:
    """Computes the mean over the pixels of each image, accumulated in float32.

    Args:
      x: Activations, floating point [B, H, W, C].

    Returns:
      The means, float32 [B, C].
    """
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
