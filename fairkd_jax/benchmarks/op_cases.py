"""The ops that benchmarks/correctness.py checks, each with its plain form and random inputs."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fairkd_jax.benchmarks.angle import compute_whole_angle_loss
from fairkd_jax.benchmarks.layers import list_implementations, list_shapes
from fairkd_jax.benchmarks.setting import create_efficientnet
from fairkd_jax.models.architecture import Architecture
from fairkd_jax.objectives import rkd
from fairkd_jax.ops import batch_norm, depthwise_conv, patch_convolution, pointwise_conv, reverse_gradient
from fairkd_jax.ops.convolution import resolve_padding

Function = Callable[..., jax.Array]


class OpCase(NamedTuple):
    """An op to check, in all its implementations.

    Attributes:
      name: Name in the printed table.
      ops: Functions under test by the name of the implementation; the name is "" for a single implementation.
      plain: Function that computes the op by its definition.
      inputs: Float arrays. Inputs before `num_cast` are cast to the dtype of a form; the other inputs are
        always float32.
      num_cast: Number of inputs that are cast.
    """

    name: str
    ops: Mapping[str, Function]
    plain: Function
    inputs: tuple[np.ndarray, ...]
    num_cast: int


def make_cases(model: str, size: int, batch: int) -> list[OpCase]:
    """Makes the cases at the shapes of a model's layers.

    Args:
      model: Name of the model.
      size: Side of the model's images, in pixels.
      batch: Images in each input.

    Returns:
      The cases: depthwise convolutions, BatchNorm, 1x1 convolution, stem, both RKD losses, gradient reversal.

    Raises:
      UsageError: The model is unknown.
    """
    rng = np.random.default_rng(0)
    architecture = create_efficientnet(model, num_classes=2).architecture

    def draw_normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    cases = _make_depthwise_cases(architecture, size, batch, draw_normal)
    side, channels = -(-size // 2), architecture.stem
    x, scale = draw_normal(batch, side, side, channels), 1 + 0.1 * draw_normal(channels)
    for swish in (True, False):
        op = functools.partial(_apply_batch_norm, swish=swish)
        plain = functools.partial(_compute_batch_norm, swish=swish)
        title = f"BatchNorm{' and swish' if swish else ''}, {side} px, {channels} channels"
        cases.append(OpCase(title, {"": op}, plain, (x, scale, 0.1 * draw_normal(channels)), 1))
    wide = architecture.stages[-1].filters
    inputs = (draw_normal(batch, side, side, channels), draw_normal(channels, wide) * channels**-0.5)
    title = f"1x1, {side} px, {channels} to {wide} channels"
    cases.append(OpCase(title, {"": pointwise_conv}, _compute_pointwise, inputs, 1))
    inputs = (draw_normal(batch, size, size, 3), draw_normal(3, 3, 3, channels))
    options: dict[str, Any] = {"stride": 2, "padding": architecture.padding}
    stem, plain = functools.partial(patch_convolution, **options), functools.partial(_compute_stem, **options)
    cases.append(OpCase(f"stem, {size} px, {channels} channels", {"": stem}, plain, inputs, 1))
    embeddings = (draw_normal(batch, architecture.head), draw_normal(batch, architecture.head + 8))
    cases.append(OpCase("RKD distance", {"": rkd.distance_loss}, _compute_distance_loss, embeddings, 0))
    cases.append(OpCase("RKD angle", {"": rkd.angle_loss}, compute_whole_angle_loss, embeddings, 0))
    reverse = functools.partial(reverse_gradient, strength=0.5)
    cases.append(OpCase("gradient reversal", {"": reverse}, _compute_reversal, (x,), 1))
    return cases


def _make_depthwise_cases(
    architecture: Architecture, size: int, batch: int, draw_normal: Callable[..., np.ndarray]
) -> list[OpCase]:
    """Makes a case for each kernel and stride, at the smallest of its shapes.

    On a GPU, XLA's choice of the kernels takes a second for each shape.
    """
    cases = []
    kinds = {(row["kernel"], row["stride"]): row for row in list_shapes(architecture, size)}
    for row in kinds.values():
        side, channels, kernel, stride = (row[k] for k in ("size", "channels", "kernel", "stride"))
        inputs = (draw_normal(batch, side, side, channels), draw_normal(kernel, kernel, 1, channels))
        options = {"stride": stride, "padding": architecture.padding}
        names = list_implementations(*(jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in inputs))
        ops = {n: functools.partial(depthwise_conv, **options, implementation=n) for n in names}
        plain = functools.partial(_compute_depthwise, **options)
        title = f"depthwise {side} px, {channels} channels, {kernel}x{kernel}, stride {stride}"
        cases.append(OpCase(title, ops, plain, inputs, 1))
    return cases


def _compute_reversal(x: jax.Array) -> jax.Array:
    """Returns the value of x, with a gradient of -0.5."""
    return lax.stop_gradient(1.5 * x) - 0.5 * x


def _apply_batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, swish: bool) -> jax.Array:
    return batch_norm(x, scale, bias, 1e-3, swish)[0]


def _compute_batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, swish: bool) -> jax.Array:
    centred = x - jnp.mean(x, (0, 1, 2), keepdims=True)
    z = centred / jnp.sqrt(jnp.mean(centred**2, (0, 1, 2), keepdims=True) + 1e-3)
    z = z * scale[None, None, None] + bias[None, None, None]
    return z * jax.nn.sigmoid(z) if swish else z


def _compute_depthwise(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Any) -> jax.Array:
    size, area = x.shape[1:3], kernel.shape[:2]
    pads = resolve_padding(padding, (size[0], size[1]), (area[0], area[1]), stride)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (padded.shape[1 + a] - area[a] + 1 for a in (0, 1))
    taps = [
        padded[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j, 0][None, None, None]
        for i in range(area[0])
        for j in range(area[1])
    ]
    return functools.reduce(jnp.add, taps)


def _compute_pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum("bhwi,io->bhwo", x, kernel)


def _compute_stem(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Any) -> jax.Array:
    size, area = x.shape[1:3], kernel.shape[:2]
    pads = resolve_padding(padding, (size[0], size[1]), (area[0], area[1]), stride)
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=names)


def _compute_distance_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
    apart = ~jnp.eye(len(student), dtype=bool)

    def compute_distances(emb: jax.Array) -> jax.Array:
        squared = jnp.sum((emb[:, None] - emb[None]) ** 2, axis=2)
        distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        return distances * (apart.sum() / distances.sum())

    difference = jnp.abs(compute_distances(student) - compute_distances(lax.stop_gradient(teacher)))
    return jnp.mean(jnp.where(difference < 1.0, 0.5 * difference**2, difference - 0.5))
