"""What every convolution shares: the padding conventions, and dense convolution as a matrix product."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from fairkd_jax.ops.pointwise import pointwise

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = Literal["SAME", "symmetric"] | Pads


def resolve_padding(padding: Padding, size: tuple[int, int], kernel: tuple[int, int], stride: int) -> Pads:
    """Turns a padding convention into explicit amounts.

    Args:
      padding: `"SAME"` (TensorFlow's and lax's: output ceil(size / stride), the odd pixel after the image),
        `"symmetric"` (PyTorch's: (k - 1) // 2 on each side), or ((top, bottom), (left, right)).
      size: Height and width of the input.
      kernel: Height and width of the kernel.
      stride: The stride, the same in both directions.

    Returns:
      ((top, bottom), (left, right)).
    """
    if padding == "SAME":
        (top, bottom), (left, right) = lax.padtype_to_pads(size, kernel, (stride, stride), "SAME")
        return (top, bottom), (left, right)
    if padding == "symmetric":
        rows, columns = ((k - 1) // 2 for k in kernel)
        return (rows, rows), (columns, columns)
    if isinstance(padding, str):
        raise ValueError(f"padding={padding!r} is unknown; use 'SAME', 'symmetric' or explicit amounts")
    if min(amount for pair in padding for amount in pair) < 0:
        raise ValueError(f"padding={padding} must not be negative")
    return padding


def output_size(size: int, pads: tuple[int, int], kernel: int, stride: int) -> int:
    """Length of a convolution's output along one axis."""
    return (size + sum(pads) - kernel) // stride + 1


def pad_image(x: jax.Array, pads: Pads) -> jax.Array:
    """Adds zeros around [B, H, W, C]."""
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def tap(padded: jax.Array, row: int, column: int, size: tuple[int, int], stride: int) -> jax.Array:
    """The pixels that kernel position (row, column) sees: [B, Hp, Wp, C] -> [B, *size, C]."""
    batch, _, _, channels = padded.shape
    rows, columns = size
    return lax.slice(
        padded,
        (0, row, column, 0),
        (batch, row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1, channels),
        (1, stride, stride, 1),
    )


def patch_convolution(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    """Dense convolution as patches times a matrix; for inputs of few channels, such as an image.

    Under `vmap` over kernels this is a batched matrix product, where `lax.conv_general_dilated` would turn
    into a grouped convolution, which is slow.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, F], cast to the dtype of `x`.
      stride: The stride, the same in both directions.
      padding: See `resolve_padding`.

    Returns:
      [B, H', W', F], dtype of `x`.
    """
    height, width, channels, filters = kernel.shape
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), (height, width), stride)
    size = (
        output_size(x.shape[1], pads[0], height, stride),
        output_size(x.shape[2], pads[1], width, stride),
    )
    padded = pad_image(x, pads)
    patches = [tap(padded, row, column, size, stride) for row in range(height) for column in range(width)]
    matrix = kernel.reshape(height * width * channels, filters)
    return pointwise(jnp.concatenate(patches, axis=-1), matrix)
