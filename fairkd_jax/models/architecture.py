"""EfficientNet as tables: stages, and how width, depth and resolution scale (Tan and Le 2019).

"EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1 and section 3.3.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """A run of MBConv blocks that share a width; the first one carries the stride."""

    kernel: int
    stride: int
    expand: int
    filters: int
    blocks: int


@dataclass(frozen=True)
class Architecture:
    """Everything that is static about a network.

    Attributes:
      stem: Channels after the first convolution.
      stages: Shallow to deep.
      head: Channels of the last convolution: the width of the embedding.
      image_size: Resolution the network was designed for.
      dropout_rate: On the embedding, before the classifier.
      stochastic_depth_rate: Of the last block; block k of N has rate * k / N.
      padding: Which convention strided convolutions follow.
      bn_epsilon: Added to the variance.
      bn_momentum: Share of the old running average that is kept.
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

# For tests and laptops: a student and a teacher that train on 32 px images in milliseconds a step.
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
    """Scales a number of channels and rounds it to a multiple of 8, never by more than 10 % downwards."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _scale(width: float, depth: float, image_size: int, dropout_rate: float) -> Architecture:
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


def _all_architectures() -> dict[str, Architecture]:
    """The table of names. Weights trained with TensorFlow need its padding, epsilon and momentum."""
    table = {f"efficientnet_{name}": _scale(*numbers) for name, numbers in _SCALING.items()}
    table |= {
        f"tf_{name}": replace(network, padding="SAME", bn_epsilon=1e-3, bn_momentum=0.99)
        for name, network in table.items()
    }
    return table | {"efficientnet_tiny": _TINY, "efficientnet_mini": _MINI}


ARCHITECTURES = _all_architectures()
