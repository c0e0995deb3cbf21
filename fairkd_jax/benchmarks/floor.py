"""Lower bounds on the bytes that a step moves and on its multiplications, counted from the networks.

Each convolution has three passes: forward, the gradient of its input, and the gradient of its kernel. In each
pass a convolution reads its input and kernel once and writes its output once. The operations between two
convolutions (BatchNorm, swish, the mean of squeeze-and-excitation) count as free. XLA's own counts are not
used here: they tell the bytes and operations of a program, and not the least that is necessary.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.program_parts import NUM_CLASSES, ProgramParts
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.models.architecture import Architecture

_FLOAT32 = 4
# Numbers that AdamW moves for each parameter: gradient, parameter and two moments are read, parameter and
# moments are written.
_ADAMW = 7


class Convolution(NamedTuple):
    """One convolution or matrix product for one image.

    Attributes:
      name: Place in the network.
      inputs: Numbers read from the input.
      outputs: Numbers written.
      kernel: Numbers in the kernel.
      products: Multiplications, each with an addition.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    products: int


class Floor(NamedTuple):
    """The lower bounds of a program.

    Attributes:
      bytes: Bytes moved, by part.
      products: Multiplications, each with an addition, by part.
    """

    bytes: dict[str, int]
    products: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(self.bytes.values())

    @property
    def operations(self) -> int:
        """Floating-point operations of all parts: two for each multiplication with an addition."""
        return 2 * sum(self.products.values())


def iterate_convolutions(architecture: Architecture, size: int, num_classes: int) -> Iterator[Convolution]:
    """Yields the convolutions of a network in order, the classifier included.

    Args:
      architecture: Architecture of the network.
      size: Side of the images, in pixels.
      num_classes: Width of the logits.

    Yields:
      The counts of each convolution, for one image.
    """
    side, channels = -(-size // 2), architecture.stem
    yield _make_dense("stem", 3, channels, size**2, side**2, area=9)
    for i, stage in enumerate(architecture.stages):
        for j in range(stage.blocks):
            name, stride = f"stage{i}_block{j}", 1 if j else stage.stride
            wide, squeezed = channels * stage.expand, max(1, channels // 4)
            if stage.expand != 1:
                yield _make_dense(f"{name}/expand", channels, wide, side**2, side**2)
            before, side = side**2, -(-side // stride)
            area = stage.kernel**2
            products = wide * area * side**2
            yield Convolution(f"{name}/depthwise", wide * before, wide * side**2, wide * area, products)
            yield _make_dense(f"{name}/se_reduce", wide, squeezed, 1, 1)
            yield _make_dense(f"{name}/se_expand", squeezed, wide, 1, 1)
            yield _make_dense(f"{name}/project", wide, stage.filters, side**2, side**2)
            channels = stage.filters
    yield _make_dense("head", channels, architecture.head, side**2, side**2)
    yield _make_dense("classifier", architecture.head, num_classes, 1, 1)


def _make_dense(
    name: str, inputs: int, outputs: int, before: int, after: int, *, area: int = 1
) -> Convolution:
    kernel = area * inputs * outputs
    return Convolution(name, inputs * before, outputs * after, kernel, kernel * after)


def count_floor(setting: BenchmarkSetting) -> Floor:
    """Counts the lower bounds of one run of a program.

    Args:
      setting: Setting of the program. Several students share the teacher and the images. The programs
        "teacher", "forward" and "step without teacher" are parts of a "step".

    Returns:
      The bytes and multiplications of each part.

    Raises:
      UsageError: A model is unknown.
    """
    width, batch = jnp.dtype(setting.dtype).itemsize, setting.batch
    parts = ProgramParts(setting)
    moved, products = {"images": 3 * batch * setting.size**2}, {}

    def list_layers(model: Any) -> list[Convolution]:
        return list(iterate_convolutions(model.architecture, setting.size, NUM_CLASSES))

    def add_part(name: str, convs: list[Convolution], kernel_width: int, times: int) -> None:
        activations = width * batch * sum(c.inputs + c.outputs for c in convs)
        moved[name] = times * (activations + kernel_width * sum(c.kernel for c in convs))
        products[name] = times * batch * sum(c.products for c in convs)

    if setting.program in ("step", "teacher"):
        # Folded kernels have the dtype of the activations.
        add_part("teacher forward", list_layers(parts.teacher), width, 1)
    if setting.program != "teacher":
        student = list_layers(parts.student)
        add_part("student forward", student, _FLOAT32, setting.members)
    if setting.program.startswith("step"):
        add_part("kernel gradients", student, _FLOAT32, setting.members)
        add_part("input gradients", student[1:], _FLOAT32, setting.members)  # the images need no gradient
        # Parameters of all students and of their adversaries.
        leaves = jax.tree.leaves(jax.eval_shape(parts.make_state).params)
        moved["optimizer"] = _ADAMW * _FLOAT32 * sum(math.prod(x.shape) for x in leaves)
    return Floor(moved, products)
