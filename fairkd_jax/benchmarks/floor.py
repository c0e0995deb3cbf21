"""The fewest bytes that a step must move, and the multiplications it must do, counted from the networks.

Each convolution reads its input and kernel once and writes its output once, in each of its passes: forward,
the gradient of its input, the gradient of its kernel. All between two convolutions (BatchNorm, swish, the
mean of squeeze-and-excitation) counts as free, as if it were computed on the way. Nothing of this is XLA's
own count, which says what a program does and not what it must do.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.program import CLASSES, Parts, Setting
from fairkd_jax.models.architecture import Architecture

_FLOAT32 = 4
_ADAMW = 7  # numbers for each parameter: gradient, parameter and two moments read; the last three written


class Convolution(NamedTuple):
    """One convolution, or matrix product, for one image.

    Attributes:
      name: where it stands.
      inputs: numbers that it reads.
      outputs: numbers that it writes.
      kernel: numbers of its kernel.
      products: multiplications with an addition.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    products: int


class Floor(NamedTuple):
    """What a program cannot do without.

    Attributes:
      bytes: by part.
      products: multiplications with an addition, by part.
    """

    bytes: dict[str, int]
    products: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """The bytes of all parts."""
        return sum(self.bytes.values())

    @property
    def operations(self) -> int:
        """The floating-point operations of all parts: two for each multiplication with an addition."""
        return 2 * sum(self.products.values())


def convolutions(architecture: Architecture, size: int, num_classes: int) -> Iterator[Convolution]:
    """The convolutions of a network in their order, the classifier included.

    Args:
      architecture: of the network.
      size: pixels of the side of its images.
      num_classes: width of the logits.
    """
    side, channels = -(-size // 2), architecture.stem
    yield _dense("stem", 3, channels, size**2, side**2, area=9)
    for i, stage in enumerate(architecture.stages):
        for j in range(stage.blocks):
            name, stride = f"stage{i}_block{j}", 1 if j else stage.stride
            wide, squeezed = channels * stage.expand, max(1, channels // 4)
            if stage.expand != 1:
                yield _dense(f"{name}/expand", channels, wide, side**2, side**2)
            before, side = side**2, -(-side // stride)
            area = stage.kernel**2
            products = wide * area * side**2
            yield Convolution(f"{name}/depthwise", wide * before, wide * side**2, wide * area, products)
            yield _dense(f"{name}/se_reduce", wide, squeezed, 1, 1)
            yield _dense(f"{name}/se_expand", squeezed, wide, 1, 1)
            yield _dense(f"{name}/project", wide, stage.filters, side**2, side**2)
            channels = stage.filters
    yield _dense("head", channels, architecture.head, side**2, side**2)
    yield _dense("classifier", architecture.head, num_classes, 1, 1)


def _dense(name: str, inputs: int, outputs: int, before: int, after: int, *, area: int = 1) -> Convolution:
    kernel = area * inputs * outputs
    return Convolution(name, inputs * before, outputs * after, kernel, kernel * after)


def step_floor(setting: Setting) -> Floor:
    """Counts what one step of a setting cannot do without.

    Args:
      setting: of a "step", of one student or several, which then share the teacher and the images; the
        programs "teacher", "forward" and "step without teacher" are parts of it.
    """
    width, batch = jnp.dtype(setting.dtype).itemsize, setting.batch
    parts = Parts(setting)
    learns = setting.program.startswith("step")
    moved, products = {"images": 3 * batch * setting.size**2}, {}

    def layers(model: Any) -> list[Convolution]:
        return list(convolutions(model.architecture, setting.size, CLASSES))

    def count(name: str, convs: list[Convolution], kernel_width: int, times: int) -> None:
        activations = width * batch * sum(c.inputs + c.outputs for c in convs)
        moved[name] = times * (activations + kernel_width * sum(c.kernel for c in convs))
        products[name] = times * batch * sum(c.products for c in convs)

    if setting.program in ("step", "teacher"):
        count("teacher forward", layers(parts.teacher), width, 1)  # folded kernels are as wide as activations
    if setting.program != "teacher":
        student = layers(parts.student)
        count("student forward", student, _FLOAT32, setting.members)
    if learns:
        count("kernel gradients", student, _FLOAT32, setting.members)
        count("input gradients", student[1:], _FLOAT32, setting.members)  # none of the images
        # The parameters of all students, those of the adversary included.
        leaves = jax.tree.leaves(jax.eval_shape(parts.init).params)
        moved["optimizer"] = _ADAMW * _FLOAT32 * sum(math.prod(x.shape) for x in leaves)
    return Floor(moved, products)
