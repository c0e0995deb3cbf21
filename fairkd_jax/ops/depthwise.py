"""Depthwise convolution with several implementations; the default depends on the platform."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fairkd_jax.ops import native
from fairkd_jax.ops.convolution import Padding, Pads, output_size, pad_image, resolve_padding, take_tap
from fairkd_jax.ops.platform import get_platform


def _lax_depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Calls lax's convolution: [B, H, W, C], [k, k, 1, C] -> [B, H', W', C]."""
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _get_sum_dtype(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _add_axes(weights_c: jax.Array) -> jax.Array:
    return weights_c[None, None, None, :]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shift_depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Sums k*k shifted copies of the image, each times its weight, in float32 or wider."""
    dtype = _get_sum_dtype(x)
    rows, columns = kernel.shape[:2]
    size = (
        output_size(x.shape[1], pads[0], rows, stride),
        output_size(x.shape[2], pads[1], columns, stride),
    )
    padded = pad_image(x, pads)
    weights = kernel.astype(dtype)
    total = sum(
        take_tap(padded, i, j, size, stride).astype(dtype) * _add_axes(weights[i, j, 0])
        for i in range(rows)
        for j in range(columns)
    )
    return jnp.asarray(total).astype(x.dtype)


def _shift_forward(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _shift_depthwise(x, kernel, stride, pads), (x, kernel)


def _compute_phase_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, phase: tuple[int, int], size: tuple[int, int]
) -> jax.Array:
    """Computes the gradient at the padded pixels (stride * a + phase[0], stride * b + phase[1]).

    Only every `stride`-th weight reads these pixels, so that each phase is a convolution of stride 1.

    Args:
      dy: Gradient of the output, [B, H', W', C].
      kernel: Kernel [k, k, 1, C], in the dtype of the sums.
      stride: Stride of the forward pass.
      phase: Row and column offset, each in [0, stride).
      size: Number of pixels of this phase in each direction.

    Returns:
      The gradient, [B, *size, C].
    """
    weights = kernel[phase[0] :: stride, phase[1] :: stride, 0]
    rows, columns = weights.shape[:2]
    # Pixel a receives dy[a - i] * weights[i]: index a + rows - 1 - i, as dy is padded by rows - 1 in front.
    pads = tuple(
        (taps - 1, max(count - have, 0))
        for taps, count, have in zip((rows, columns), size, dy.shape[1:3], strict=True)
    )
    padded = pad_image(dy, (pads[0], pads[1]))
    total = sum(
        take_tap(padded, rows - 1 - i, columns - 1 - j, size, 1).astype(kernel.dtype)
        * _add_axes(weights[i, j])
        for i in range(rows)
        for j in range(columns)
    )
    return jnp.asarray(total)


def _compute_input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: tuple[int, int]
) -> jax.Array:
    """Computes the gradient of the image of `size`: a convolution for each phase, then interleaved."""
    batch, channels = dy.shape[0], dy.shape[-1]
    # Padded sizes are rounded up, so that every phase has the same number of pixels.
    counts = tuple(-(-(n + sum(pad)) // stride) for n, pad in zip(size, pads, strict=True))
    phases = [
        [_compute_phase_gradient(dy, kernel, stride, (p, q), (counts[0], counts[1])) for q in range(stride)]
        for p in range(stride)
    ]
    if stride == 1:
        dx_padded = phases[0][0]
    else:
        rows = [jnp.stack(row, axis=3) for row in phases]
        dx_padded = jnp.stack(rows, axis=2).reshape(batch, counts[0] * stride, counts[1] * stride, channels)
    (top, _), (left, _) = pads
    return dx_padded[:, top : top + size[0], left : left + size[1], :]


def _compute_weight_gradient(
    x: jax.Array, dy: jax.Array, stride: int, pads: Pads, kernel_size: tuple[int, int]
) -> jax.Array:
    """Computes the gradient of the kernel, [k, k, 1, C], in float32 or wider.

    A scan over image rows adds the k*k products element by element, each product into an array [B, W', C].
    XLA's CPU backend can then vectorise over channels. The batch axis can stay sharded, as the only sum over
    this axis comes last. Milliseconds on 2 cores for (B, H = W, C, k) = (16, 64, 32, 3) and (16, 16, 240, 5):

      a reduction per tap, also after barriers or as a product with ones       25 to 30, 24 to 30
      scan over the batch into [C] per tap (gathers a sharded batch)            8 to 10,  9 to 10
      scan over rows into [B, C] per tap                                        9 to 11,  7
      scan over rows into [B, W', C] per tap                                         6.5, 3
    """
    dtype = _get_sum_dtype(x)
    rows, columns = kernel_size
    batch, height, width, channels = dy.shape
    padded = pad_image(x, pads)

    def add_row(totals: list[jax.Array], row: jax.Array) -> tuple[list[jax.Array], None]:
        window = lax.dynamic_slice_in_dim(padded, row * stride, rows, axis=1)
        slope = lax.dynamic_slice_in_dim(dy, row, 1, axis=1).astype(dtype)
        products = [
            take_tap(window, i, j, (1, width), stride).astype(dtype) * slope
            for i in range(rows)
            for j in range(columns)
        ]
        return [total + product for total, product in zip(totals, products, strict=True)], None

    zeros = [jnp.zeros((batch, 1, width, channels), dtype) for _ in range(rows * columns)]
    totals, _ = lax.scan(add_row, zeros, jnp.arange(height))
    taps = [jnp.sum(total, axis=(0, 1, 2)) for total in totals]
    return jnp.stack(taps).reshape(rows, columns, 1, channels)


def _shift_backward(
    stride: int, pads: Pads, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    rows, columns = kernel.shape[:2]
    weights = kernel.astype(_get_sum_dtype(x))
    dx = _compute_input_gradient(dy, weights, stride, pads, (x.shape[1], x.shape[2]))
    dkernel = _compute_weight_gradient(x, dy, stride, pads, (rows, columns))
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


_shift_depthwise.defvjp(_shift_forward, _shift_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _native_depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Calls the kernels in C++, for float32 and square kernels only."""
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[0] not in native.KERNEL_SIZES:
        sizes = " and ".join(f"{k}x{k}" for k in native.KERNEL_SIZES)
        raise ValueError(f"implementation='native' has kernels of {sizes}, not {kernel.shape[:2]}; use None")
    size = (output_size(x.shape[axis], pads[axis - 1], kernel.shape[axis - 1], stride) for axis in (1, 2))
    result = jax.ShapeDtypeStruct((x.shape[0], *size, x.shape[3]), x.dtype)
    return native.call_kernel("depthwise_forward", result, x, kernel, **_make_attributes(stride, pads))


def _make_attributes(stride: int, pads: Pads) -> dict[str, np.int32]:
    return {"stride": np.int32(stride), "top": np.int32(pads[0][0]), "left": np.int32(pads[1][0])}


def _native_forward(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _native_depthwise(x, kernel, stride, pads), (x, kernel)


def _native_backward(
    stride: int, pads: Pads, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    results = (jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct(kernel.shape, kernel.dtype))
    return native.call_kernel("depthwise_backward", results, x, kernel, dy, **_make_attributes(stride, pads))


_native_depthwise.defvjp(_native_forward, _native_backward)

_IMPLEMENTATIONS: dict[str, Callable[[jax.Array, jax.Array, int, Pads], jax.Array]] = {
    "shift": _shift_depthwise,
    "lax": _lax_depthwise,
    "native": _native_depthwise,
}


def _choose_implementation(x: jax.Array, kernel: jax.Array) -> str:
    # On a CPU, XLA's grouped convolution is some 70 times slower than shifts; accelerators have kernels.
    if get_platform() != "cpu":
        return "lax"
    has_kernel = kernel.shape[0] == kernel.shape[1] and kernel.shape[0] in native.KERNEL_SIZES
    return "native" if has_kernel and native.can_serve(x, kernel) else "shift"


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding, implementation: str | None = None
) -> jax.Array:
    """Convolves each channel with its own filter.

    Args:
      x: Images, floating point [B, H, W, C].
      kernel: Kernel [k, k, 1, C]. Its dtype may be wider than that of `x` (float32 weights, bfloat16
        activations), and its gradient has its dtype.
      stride: Stride, the same in both directions, at most k.
      padding: Padding: `"SAME"`, `"symmetric"` or ((top, bottom), (left, right)); see `resolve_padding`.
      implementation: `"shift"`, `"lax"`, `"native"` (kernels in C++: float32, k of 3 and 5, a single CPU
        device), or None for the fastest one that serves these operands.

    Returns:
      The result, [B, H', W', C], in the dtype of `x`; sums are accumulated in float32 or wider.

    Raises:
      ValueError: Shapes do not match, the stride exceeds k, or the implementation is unknown or does not
        serve these operands.
    """
    if kernel.ndim != 4 or kernel.shape[2] != 1 or kernel.shape[3] != x.shape[-1]:
        raise ValueError(f"kernel is {kernel.shape}; for x {x.shape} it must be [k, k, 1, {x.shape[-1]}]")
    if stride > min(kernel.shape[:2]):
        raise ValueError(
            f"stride={stride} would skip pixels with a kernel of {kernel.shape[:2]}; use a smaller stride"
        )
    name = implementation or _choose_implementation(x, kernel)
    if name not in _IMPLEMENTATIONS:
        raise ValueError(f"implementation={name!r} is unknown; use one of {sorted(_IMPLEMENTATIONS)}")
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1]), stride)
    return _IMPLEMENTATIONS[name](x, kernel, stride, pads)
