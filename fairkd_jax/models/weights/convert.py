"""Conversion between checkpoint files and variables, in which every array has to be known by its name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fairkd_jax.errors import UsageError
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.models.weights.conventions import (
    EPSILONS,
    NORMALIZATION,
    Pretrained,
    check_family,
    check_normalization,
    read_class_names,
    read_norm_epsilon,
)
from fairkd_jax.models.weights.files import Checkpoint, read_checkpoint
from fairkd_jax.models.weights.leaves import SOURCES, Leaf, list_leaves
from fairkd_jax.types import Tree

_SHOWN = 10
# Arrays that a network does not need: torch's counters of steps, and Keras's preprocessing layer.
_IGNORED = re.compile(rf"(.*\.)?num_batches_tracked|{NORMALIZATION.pattern}")
_INIT_SIZE = 32  # pixels; the shapes of the variables do not depend on it


def read_efficientnet(name: str, path: Path, *, num_classes: int) -> Pretrained:
    """Reads published weights of an EfficientNet.

    Args:
      name: Name in `ARCHITECTURES`, of the family that the file has.
      path: Checkpoint file of torchvision, timm or Keras.
      num_classes: Number of classes. If the file has no head of this size, a new head is drawn at random.

    Raises:
      UsageError: The file cannot be read, its arrays do not fit the model, or its images are normalized in
        another way than by ImageNet's mean and standard deviation.
    """
    architecture = ARCHITECTURES[name]
    model = EfficientNet(architecture, num_classes)
    checkpoint = read_checkpoint(path)
    table = list(list_leaves(architecture))
    source = _recognize_source(checkpoint, table)
    check_family(name, checkpoint, source)
    check_normalization(checkpoint)
    image = jnp.zeros((1, _INIT_SIZE, _INIT_SIZE, 3))
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), image))
    head = [leaf for leaf in table if leaf.is_head]
    new_head = any(
        checkpoint.shapes.get(leaf.names[source]) != _convert_shape(leaf, source, shapes) for leaf in head
    )
    table = [leaf for leaf in table if not (new_head and leaf.is_head)]
    extra = [leaf.names[source] for leaf in head] if new_head else []
    _check_names(checkpoint, table, source, shapes, extra)
    arrays = {leaf.path: _read_leaf(checkpoint, leaf, source) for leaf in table}
    _check_usable(checkpoint.path, arrays)
    if new_head:
        drawn = flatten_dict(jax.jit(model.init)(jax.random.key(0), image))
        arrays |= {leaf.path: drawn[leaf.path] for leaf in head}
    variables = unflatten_dict({leaf: jnp.asarray(array) for leaf, array in arrays.items()})
    names = () if new_head else read_class_names(checkpoint, num_classes)
    return Pretrained(variables, new_head, names, read_norm_epsilon(checkpoint, name, source))


def to_source(name: str, variables: Tree, source: str) -> dict[str, np.ndarray]:
    """Converts variables to the names and layouts of a source.

    Args:
      name: Name of the model, an EfficientNet.
      variables: Variables of this model.
      source: Source of the names: "timm", "torchvision" or "keras".

    Returns:
      The arrays by their names in the source.

    Raises:
      UsageError: The source is unknown.
    """
    if source not in SOURCES:
        raise UsageError(f"source {source!r} is unknown; use one of {', '.join(SOURCES)}")
    flat: Any = flatten_dict(variables)
    converted = {}
    for leaf in list_leaves(ARCHITECTURES[name]):
        change = leaf.layout.to_keras if source == "keras" else leaf.layout.to_torch
        converted[leaf.names[source]] = change(np.asarray(flat[leaf.path]))
    return converted


def _recognize_source(checkpoint: Checkpoint, table: list[Leaf]) -> str:
    """Finds the source with the most names in the file."""
    hits = {source: sum(leaf.names[source] in checkpoint.shapes for leaf in table) for source in SOURCES}
    source = max(hits, key=lambda name: hits[name])
    if not hits[source]:
        some = ", ".join(list(checkpoint.shapes)[:3]) or "nothing"
        raise UsageError(
            f"{checkpoint.path} has no names of an EfficientNet of timm, torchvision or Keras: {some};"
            " use a checkpoint of one of these"
        )
    return source


def _convert_shape(leaf: Leaf, source: str, shapes: Mapping[tuple[str, ...], Any]) -> tuple[int, ...]:
    """Computes the shape that the leaf must have in the file."""
    change = leaf.layout.to_keras if source == "keras" else leaf.layout.to_torch
    # A view of a single number, which takes no memory.
    return change(np.broadcast_to(np.float32(0), shapes[leaf.path].shape)).shape


def _check_names(
    checkpoint: Checkpoint,
    table: list[Leaf],
    source: str,
    shapes: Mapping[tuple[str, ...], Any],
    extra: list[str],
) -> None:
    wanted = {leaf.names[source]: _convert_shape(leaf, source, shapes) for leaf in table}
    missing = [name for name in wanted if name not in checkpoint.shapes]
    unexpected = [
        name
        for name in checkpoint.shapes
        if name not in wanted and name not in extra and not _IGNORED.fullmatch(name)
    ]
    misshapen = [
        f"{name} {checkpoint.shapes[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in checkpoint.shapes and checkpoint.shapes[name] != shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    words = [f"{len(names)} {fault} ({_shorten_list(names)})" for fault, names in faults.items() if names]
    if words:
        raise UsageError(f"{checkpoint.path} does not fit this model: {'; '.join(words)}")


def _shorten_list(names: list[str]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


def _read_leaf(checkpoint: Checkpoint, leaf: Leaf, source: str) -> np.ndarray:
    change = leaf.layout.from_keras if source == "keras" else leaf.layout.from_torch
    return np.ascontiguousarray(change(checkpoint.read(leaf.names[source]))).astype(np.float32)


def _check_usable(path: Path, arrays: Mapping[tuple[str, ...], np.ndarray]) -> None:
    bad = ["/".join(leaf) for leaf, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise UsageError(
            f"{path} holds numbers that are not finite: {_shorten_list(bad)}; download the file again"
        )
    variances = [array for leaf, array in arrays.items() if leaf[-1] == "var"]
    if any((variance < 0).any() for variance in variances):
        raise UsageError(f"{path} holds negative variances and is damaged; download the file again")
    for epsilon in EPSILONS:
        if all(np.allclose(variance, 1.0 - epsilon, rtol=0, atol=1e-6) for variance in variances):
            raise UsageError(
                f"{path} has its BatchNorm folded into the convolutions (all running variances"
                f" 1 - {epsilon:g}) and cannot be trained further; use the checkpoint before folding"
            )
