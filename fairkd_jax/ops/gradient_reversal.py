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
    # Each leaf is scaled in its own dtype: a float32 strength must not widen a bfloat16 cotangent.
    reversed_cotangent = jax.tree.map(lambda g: -strength.astype(g.dtype) * g, cotangent)
    return reversed_cotangent, jnp.zeros_like(strength)


_reverse.defvjp(_reverse_forward, _reverse_backward)


def reverse_gradient(x: T, strength: jax.typing.ArrayLike) -> T:
    """Returns `x` unchanged; the backward pass multiplies the gradient by `-strength`.

    The layers before this operation are trained to *maximise* the loss that the layers after it minimise
    (equations 4 and 5 of the paper, where `strength` is called lambda).

    Args:
      x: Array, or pytree of floating-point arrays.
      strength: Scalar; it is traced, so that a new value never recompiles. Its gradient is zero.

    Returns:
      The value of `x` with the same structure, shapes and dtypes.
    """
    return _reverse(x, jnp.asarray(strength, dtype=jnp.result_type(strength, jnp.float32)))
