"""Convolution of 1x1 pixels as a matrix product, with a kernel gradient that is fast on XLA's CPU backend."""

import jax
import jax.numpy as jnp
from jax import lax

from fairkd_jax.ops.platform import get_platform


@jax.custom_vjp
def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Mixes the channels of each pixel.

    The gradient of the kernel is a product over all pixels. For this product the CPU backend transposes the
    left factor, together with all operations fused into the factor. In JAX's own rule the left factor is the
    gradient of the output, which after an expansion is six times as wide as the input. Here the left factor
    is the narrower of the two.

    Milliseconds of product, BatchNorm and swish, value and gradient, on 2 busy cores for (B, H = W, in, out)
    = (16, 64, 16, 96), (16, 32, 24, 144), (16, 64, 32, 16): 130, 45, 20 by JAX's rule, 64, 14, 13 by this
    rule.

    Args:
      x: Activations, floating point [..., I].
      kernel: Kernel [I, O]; its dtype may be wider than that of `x`, and its gradient has its dtype.

    Returns:
      The result, [..., O], in the dtype of `x`.
    """
    return x @ kernel.astype(x.dtype)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return pointwise_conv(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    dx = dy @ kernel.astype(dy.dtype).T
    pixels = tuple(range(x.ndim - 1))
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
        if get_platform() in ("cpu", "plain"):  # a CPU cannot multiply bfloat16 into float32
            left, right = left.astype(wide), right.astype(wide)
        return lax.dot_general(left, right, ((pixels, pixels), ((), ())), preferred_element_type=wide)

    dkernel = multiply(x, dy) if x.shape[-1] <= dy.shape[-1] else multiply(dy, x).T
    return dx, dkernel.astype(kernel.dtype)


pointwise_conv.defvjp(_forward, _backward)
