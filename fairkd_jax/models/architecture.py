"""Tables of EfficientNet: stages, and the scaling of width, depth and resolution (Tan and Le 2019).

"EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1 and section 3.3.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from fairkd_jax.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """A row of MBConv blocks of one width; the first block has the stride.

    Attributes:
      kernel: Side of the depthwise kernels, in pixels.
      stride: Stride of the first block.
      expand: Factor of the channels inside a block.
      filters: Channels after each block.
      blocks: Number of blocks.
    """

    kernel: int
    stride: int
    expand: int
    filters: int
    blocks: int


@dataclass(frozen=True)
class Architecture:
    """The static description of a network.

    Attributes:
      stem: Channels after the first convolution.
      stages: Stages, from shallow to deep.
      head: Channels of the last convolution: the width of the embedding.
      image_size: Side, in pixels, of the images that the network was designed for.
      dropout_rate: Probability of dropout on the embedding, before the classifier.
      stochastic_depth_rate: Highest probability that a block is skipped; block k of N has rate * k / N.
      padding: Padding convention of strided convolutions.
      bn_epsilon: Number that BatchNorm adds to the variance.
      bn_momentum: Share of the old running average that BatchNorm keeps at each step.
    """

    stem: int
    stages: tuple[Stage, ...]
    head: int
    image_size: int
    dropout_rate: float
    stochastic_depth_rate: float
    padding: Literal["SAME", "symmetric"] = "symmetric"
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9


_B0 = Architecture(
    stem=32,
    stages=(
        Stage(kernel=3, stride=1, expand=1, filters=16, blocks=1),
        Stage(kernel=3, stride=2, expand=6, filters=24, blocks=2),
        Stage(kernel=5, stride=2, expand=6, filters=40, blocks=2),
        Stage(kernel=3, stride=2, expand=6, filters=80, blocks=3),
        Stage(kernel=5, stride=1, expand=6, filters=112, blocks=3),
        Stage(kernel=5, stride=2, expand=6, filters=192, blocks=4),
        Stage(kernel=3, stride=1, expand=6, filters=320, blocks=1),
    ),
    head=1280,
    image_size=224,
    dropout_rate=0.2,
    stochastic_depth_rate=0.2,
)

# Name: width, depth, image size, dropout.
_SCALING = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
}

# A student and a teacher for tests and laptops: a step on 32 px images takes milliseconds.
_TINY = Architecture(
    stem=16,
    stages=(
        Stage(kernel=3, stride=2, expand=1, filters=16, blocks=1),
        Stage(kernel=3, stride=2, expand=4, filters=32, blocks=2),
    ),
    head=288,
    image_size=32,
    dropout_rate=0.1,
    stochastic_depth_rate=0.0,
)
_MINI = Architecture(
    stem=24,
    stages=(
        Stage(kernel=3, stride=2, expand=1, filters=24, blocks=1),
        Stage(kernel=3, stride=2, expand=4, filters=40, blocks=2),
        Stage(kernel=5, stride=1, expand=4, filters=72, blocks=2),
    ),
    head=320,
    image_size=32,
    dropout_rate=0.1,
    stochastic_depth_rate=0.0,
)


def round_filters(filters: float, width: float) -> int:
    """Scales a number of channels and rounds the result to a multiple of 8.

    Args:
      filters: Number of channels.
      width: Factor of the width.

    Returns:
      A multiple of 8, at least 8, that is at most 10 % below `filters * width`.
    """
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _scale_b0(width: float, depth: float, image_size: int, dropout_rate: float) -> Architecture:
    stages = tuple(
        replace(stage, filters=round_filters(stage.filters, width), blocks=math.ceil(depth * stage.blocks))
        for stage in _B0.stages
    )
    return replace(
        _B0,
        stem=round_filters(_B0.stem, width),
        stages=stages,
        head=round_filters(_B0.head, width),
        image_size=image_size,
        dropout_rate=dropout_rate,
    )


def _make_architectures() -> dict[str, Architecture]:
    # Weights trained with TensorFlow need its padding, epsilon and momentum: the family `tf_`.
    table = {f"efficientnet_{name}": _scale_b0(*numbers) for name, numbers in _SCALING.items()}
    table |= {
        f"tf_{name}": replace(network, padding="SAME", bn_epsilon=1e-3, bn_momentum=0.99)
        for name, network in table.items()
    }
    return table | {"efficientnet_tiny": _TINY, "efficientnet_mini": _MINI}


# Name -> architecture. Names are looked up when a model is made: the table may grow at run time.
ARCHITECTURES = _make_architectures()


def find_architecture(name: str) -> Architecture:
    """Returns the architecture of an EfficientNet's name.

    Raises:
      UsageError: No EfficientNet has this name.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"no EfficientNet is called {name!r}; use one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
