"""Padding conventions of all convolutions, and dense convolution as a matrix product."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from fairkd_jax.ops.pointwise import pointwise_conv

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = Literal["SAME", "symmetric"] | Pads


def resolve_padding(padding: Padding, size: tuple[int, int], kernel: tuple[int, int], stride: int) -> Pads:
    """Turns a padding convention into explicit amounts.

    Args:
      padding: `"SAME"` (convention of TensorFlow and lax: output ceil(size / stride), the odd pixel after the
        image), `"symmetric"` (convention of PyTorch: (k - 1) // 2 on each side), or the amounts
        ((top, bottom), (left, right)).
      size: Height and width of the input, in pixels.
      kernel: Height and width of the kernel, in pixels.
      stride: Stride, the same in both directions.

    Returns:
      The amounts ((top, bottom), (left, right)), in pixels.

    Raises:
      ValueError: The convention is unknown, or an amount is negative.
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
        raise ValueError(f"padding={padding} must not be negative; use amounts of 0 or more")
    return padding


def output_size(size: int, pads: tuple[int, int], kernel: int, stride: int) -> int:
    """Computes the length of a convolution's output along an axis.

    Args:
      size: Length of the input, in pixels.
      pads: Padding before and after the input, in pixels.
      kernel: Length of the kernel, in pixels.
      stride: Stride.

    Returns:
      The length in pixels.
    """
    return (size + sum(pads) - kernel) // stride + 1


def pad_image(x: jax.Array, pads: Pads) -> jax.Array:
    """Adds zeros around the images of `x`, [B, H, W, C]."""
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def take_tap(padded: jax.Array, row: int, column: int, size: tuple[int, int], stride: int) -> jax.Array:
    """Selects the pixels that a position of the kernel reads.

    Args:
      padded: Padded images, [B, Hp, Wp, C].
      row: Row in the kernel.
      column: Column in the kernel.
      size: Height and width of the convolution's output.
      stride: Stride, the same in both directions.

    Returns:
      The pixels, [B, *size, C].
    """
    batch, _, _, channels = padded.shape
    rows, columns = size
    return lax.slice(
        padded,
        (0, row, column, 0),
        (batch, row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1, channels),
        (1, stride, stride, 1),
    )


def patch_convolution(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    """Computes a dense convolution as patches times a matrix, for inputs of few channels such as an image.

    Under `vmap` over kernels this is a batched matrix product; `lax.conv_general_dilated` would become a
    grouped convolution, which is slow.

    Args:
      x: Images, floating point [B, H, W, C].
      kernel: Kernel [k, k, C, F], cast to the dtype of `x`.
      stride: Stride, the same in both directions.
      padding: Padding; see `resolve_padding`.

    Returns:
      The result, [B, H', W', F], in the dtype of `x`.
    """
    height, width, channels, filters = kernel.shape
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), (height, width), stride)
    size = (
        output_size(x.shape[1], pads[0], height, stride),
        output_size(x.shape[2], pads[1], width, stride),
    )
    padded = pad_image(x, pads)
    patches = [
        take_tap(padded, row, column, size, stride) for row in range(height) for column in range(width)
    ]
    matrix = kernel.reshape(height * width * channels, filters)
    return pointwise_conv(jnp.concatenate(patches, axis=-1), matrix)
