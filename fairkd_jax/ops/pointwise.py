"""1x1 convolution as the matrix product that it is, with a weight gradient that suits XLA's CPU backend."""

import jax
import jax.numpy as jnp
from jax import lax

from fairkd_jax.ops.platform import platform


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Mixes channels.

    Its gradient of the kernel is a product over all pixels. For that the CPU backend transposes the left
    factor, together with all that leads up to it: JAX's own rule has the gradient of the output there, which
    behind an expansion is six times as wide as the input. Here it is the narrower of the two. Milliseconds of
    product, BatchNorm and swish, value and gradient, on 2 busy cores for (B, H = W, in, out) =
    (16, 64, 16, 96), (16, 32, 24, 144), (16, 64, 32, 16): 130, 45, 20 by JAX's rule, 64, 14, 13 by this one.

    Args:
      x: floating point [..., I].
      kernel: [I, O]; it may be wider than `x`, and its gradient then is.

    Returns:
      [..., O], dtype of `x`.
    """
    return x @ kernel.astype(x.dtype)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return pointwise(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    dx = dy @ kernel.astype(dy.dtype).T
    pixels = tuple(range(x.ndim - 1))
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def product(left: jax.Array, right: jax.Array) -> jax.Array:
        if platform() in ("cpu", "plain"):  # a CPU has no product of bfloat16 with a float32 result
            left, right = left.astype(wide), right.astype(wide)
        return lax.dot_general(left, right, ((pixels, pixels), ((), ())), preferred_element_type=wide)

    dkernel = product(x, dy) if x.shape[-1] <= dy.shape[-1] else product(dy, x).T
    return dx, dkernel.astype(kernel.dtype)


pointwise.defvjp(_forward, _backward)
