"""Gradient reversal (Ganin and Lempitsky 2015, "Unsupervised Domain Adaptation by Backpropagation")."""

from typing import TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


@jax.custom_vjp
def _reverse(x: T, strength: jax.Array) -> T:
    return x


def _reverse_forward(x: T, strength: jax.Array) -> tuple[T, jax.Array]:
    return x, strength


def _reverse_backward(strength: jax.Array, cotangent: T) -> tuple[T, jax.Array]:
    # Scaled leaf by leaf in the leaf's own dtype: a float32 strength must not widen a bfloat16 cotangent.
    reversed_cotangent = jax.tree.map(lambda g: -strength.astype(g.dtype) * g, cotangent)
    return reversed_cotangent, jnp.zeros_like(strength)


_reverse.defvjp(_reverse_forward, _reverse_backward)


def reverse_gradient(x: T, strength: jax.typing.ArrayLike) -> T:
    """Returns `x` unchanged; on the way back the gradient is multiplied by `-strength`.

    Below it a network is trained to *maximise* the loss that what stands above it minimises (equations
    4 and 5 of the paper, where `strength` is called lambda).

    Args:
      x: An array or a pytree of floating-point arrays.
      strength: Scalar, traced: changing it never recompiles. It receives a gradient of zero.

    Returns:
      `x`, same structure, shapes and dtypes.
    """
    return _reverse(x, jnp.asarray(strength, dtype=jnp.result_type(strength, jnp.float32)))
