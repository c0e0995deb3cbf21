"""Table of leaves: for each array of a network its names and layouts in published checkpoints."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fairkd_jax.models.architecture import Architecture

SOURCES = ("timm", "torchvision", "keras")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Conversions between our layout of an array and those of torch and Keras files; all keep every byte.

    Attributes:
      to_torch: Conversion from our layout to torch's.
      from_torch: Conversion from torch's layout to ours.
      to_keras: Conversion from our layout to Keras's.
      from_keras: Conversion from Keras's layout to ours.
    """

    to_torch: Callable[[np.ndarray], np.ndarray]
    from_torch: Callable[[np.ndarray], np.ndarray]
    to_keras: Callable[[np.ndarray], np.ndarray]
    from_keras: Callable[[np.ndarray], np.ndarray]


def _keep(x: np.ndarray) -> np.ndarray:
    return x


VECTOR = Layout(_keep, _keep, _keep, _keep)
# [in, out]: a matrix.
DENSE = Layout(np.transpose, np.transpose, _keep, _keep)
# [in, out]: a 1x1 convolution.
POINTWISE = Layout(
    lambda x: x.T[:, :, None, None],
    lambda x: x[:, :, 0, 0].T,
    lambda x: x[None, None],
    lambda x: x[0, 0],
)
# [k, k, in, out].
CONVOLUTION = Layout(lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0), _keep, _keep)
# [k, k, 1, C]: torch has [C, 1, k, k], keras [k, k, C, 1].
DEPTHWISE = Layout(
    lambda x: x.transpose(3, 2, 0, 1),
    lambda x: x.transpose(2, 3, 1, 0),
    lambda x: x.transpose(0, 1, 3, 2),
    lambda x: x.transpose(0, 1, 3, 2),
)
_LAYOUTS = {"conv": CONVOLUTION, "depthwise": DEPTHWISE, "pointwise": POINTWISE, "dense": DENSE}


@dataclass(frozen=True)
class Leaf:
    """An array of a network.

    Attributes:
      path: Path in our variables, such as ("params", "stem_conv", "kernel").
      names: Name of the array in each source.
      layout: Layout of the array in the sources.
    """

    path: tuple[str, ...]
    names: dict[str, str]
    layout: Layout

    @property
    def is_head(self) -> bool:
        """Whether the shape depends on the number of classes."""
        return self.path[1] == "classifier"


def list_leaves(architecture: Architecture) -> Iterator[Leaf]:
    """Yields all leaves of a network of this architecture."""
    yield from _list_layer("stem_conv", "conv", ("conv_stem", "features.0.0", "stem_conv"))
    yield from _list_norm("stem_bn", ("bn1", "features.0.1", "stem_bn"))
    for i, stage in enumerate(architecture.stages):
        for j in range(stage.blocks):
            yield from _list_block(i, j, expands=stage.expand != 1)
    last = len(architecture.stages) + 1
    yield from _list_layer("head_conv", "pointwise", ("conv_head", f"features.{last}.0", "top_conv"))
    yield from _list_norm("head_bn", ("bn2", f"features.{last}.1", "top_bn"))
    yield from _list_layer("classifier", "dense", ("classifier", "classifier.1", "predictions"), bias=True)


def _list_block(i: int, j: int, expands: bool) -> Iterator[Leaf]:
    ours = f"stage{i}_block{j}"
    timm, vision = f"blocks.{i}.{j}", f"features.{i + 1}.{j}.block"
    keras = f"block{i + 1}{chr(ord('a') + j)}"
    # timm numbers a block's convolutions and norms; torchvision numbers its parts.
    part = int(expands)
    if expands:
        yield from _list_layer(
            f"{ours}/expand_conv", "pointwise", (f"{timm}.conv_pw", f"{vision}.0.0", f"{keras}_expand_conv")
        )
        yield from _list_norm(f"{ours}/expand_bn", (f"{timm}.bn1", f"{vision}.0.1", f"{keras}_expand_bn"))
    yield from _list_layer(
        f"{ours}/depthwise_conv", "depthwise", (f"{timm}.conv_dw", f"{vision}.{part}.0", f"{keras}_dwconv")
    )
    yield from _list_norm(
        f"{ours}/depthwise_bn", (f"{timm}.bn{part + 1}", f"{vision}.{part}.1", f"{keras}_bn")
    )
    for name, timm_name, number in (("reduce", "conv_reduce", 1), ("expand", "conv_expand", 2)):
        names = (f"{timm}.se.{timm_name}", f"{vision}.{part + 1}.fc{number}", f"{keras}_se_{name}")
        yield from _list_layer(f"{ours}/se_{name}", "pointwise", names, bias=True)
    project = "conv_pwl" if expands else "conv_pw"
    yield from _list_layer(
        f"{ours}/project_conv",
        "pointwise",
        (f"{timm}.{project}", f"{vision}.{part + 2}.0", f"{keras}_project_conv"),
    )
    names = (f"{timm}.bn{part + 2}", f"{vision}.{part + 2}.1", f"{keras}_project_bn")
    yield from _list_norm(f"{ours}/project_bn", names)


def _list_layer(ours: str, kind: str, prefixes: tuple[str, str, str], bias: bool = False) -> Iterator[Leaf]:
    yield _make_leaf("params", ours, "kernel", prefixes, "weight", "kernel", _LAYOUTS[kind])
    if bias:
        yield _make_leaf("params", ours, "bias", prefixes, "bias", "bias", VECTOR)


def _list_norm(ours: str, prefixes: tuple[str, str, str]) -> Iterator[Leaf]:
    for collection, name, torch, keras in (
        ("params", "scale", "weight", "gamma"),
        ("params", "bias", "bias", "beta"),
        ("batch_stats", "mean", "running_mean", "moving_mean"),
        ("batch_stats", "var", "running_var", "moving_variance"),
    ):
        yield _make_leaf(collection, ours, name, prefixes, torch, keras, VECTOR)


def _make_leaf(
    collection: str,
    ours: str,
    name: str,
    prefixes: tuple[str, str, str],
    torch: str,
    keras: str,
    layout: Layout,
) -> Leaf:
    timm, vision, keras_prefix = prefixes
    names = {
        "timm": f"{timm}.{torch}",
        "torchvision": f"{vision}.{torch}",
        "keras": f"{keras_prefix}/{keras}",
    }
    return Leaf((collection, *ours.split("/"), name), names, layout)
