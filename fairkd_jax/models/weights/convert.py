"""From a checkpoint file to our variables and back, with every name accounted for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from fairkd_jax.errors import UsageError
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.models.registry import create_model
from fairkd_jax.models.weights.files import Checkpoint, read_checkpoint
from fairkd_jax.models.weights.leaves import SOURCES, Leaf, leaves
from fairkd_jax.types import Tree

_SHOWN = 10
# What a network does not need: torch's counters, and Keras's preprocessing, numbered in models made later.
_IGNORED = re.compile(r"(.*\.)?num_batches_tracked|normalization(_\d+)?/(mean|variance|count)")
_INIT_SIZE = 32  # pixels; the shapes of the variables do not depend on it


def load_pretrained(name: str, path: str | Path, *, num_classes: int = 1000) -> Tree:
    """Reads published weights.

    Args:
      name: of the model; its family must be that of the file: `efficientnet_*` for torchvision's and timm's
        own, `tf_efficientnet_*` for Keras's and for timm's `tf_` ones.
      path: a .safetensors, .h5 or .pth file of torchvision, timm or Keras, recognised by its names.
      num_classes: where the file's head is of another size, or absent, the head is a new one, drawn at
        random; the log says so.

    Returns:
      Variables `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
      UsageError: the file cannot be read, or does not fit: one line with the names that are missing,
        unexpected or misshapen.
    """
    variables, _ = read_pretrained(name, path, num_classes=num_classes)
    return variables


def read_pretrained(name: str, path: str | Path, *, num_classes: int) -> tuple[Tree, bool]:
    """As `load_pretrained`, and whether the head is a new one."""
    module = create_model(name, num_classes=num_classes)
    architecture = ARCHITECTURES[name]
    checkpoint = read_checkpoint(Path(path).expanduser())
    _check_family(name, checkpoint)
    table = list(leaves(architecture))
    source = _recognised(checkpoint, table)
    shapes = flatten_dict(
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, _INIT_SIZE, _INIT_SIZE, 3)))
    )
    head = [leaf for leaf in table if leaf.is_head]
    new_head = any(checkpoint.shapes.get(leaf.names[source]) != _shape(leaf, source, shapes) for leaf in head)
    table = [leaf for leaf in table if not (new_head and leaf.is_head)]
    extra = [leaf.names[source] for leaf in head] if new_head else []
    _check_names(checkpoint, table, source, shapes, extra)
    arrays = {leaf.path: _read(checkpoint, leaf, source) for leaf in table}
    _check_usable(checkpoint.path, arrays, architecture.bn_epsilon)
    if new_head:
        drawn = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, _INIT_SIZE, _INIT_SIZE, 3)))
        arrays |= {leaf.path: flatten_dict(drawn)[leaf.path] for leaf in head}
        logging.info("%s has no head of %d classes: it is a new one", checkpoint.path, num_classes)
    return unflatten_dict({leaf: jnp.asarray(array) for leaf, array in arrays.items()}), new_head


def to_source(name: str, variables: Tree, source: str) -> dict[str, np.ndarray]:
    """Our variables under the names and in the layouts of a source.

    Args:
      name: of the model.
      variables: of that model.
      source: "timm", "torchvision" or "keras".
    """
    if source not in SOURCES:
        raise UsageError(f"unknown names {source!r}; one of {', '.join(SOURCES)}")
    flat: Any = flatten_dict(variables)
    converted = {}
    for leaf in leaves(ARCHITECTURES[name]):
        change = leaf.layout.to_keras if source == "keras" else leaf.layout.to_torch
        converted[leaf.names[source]] = change(np.asarray(flat[leaf.path]))
    return converted


def _recognised(checkpoint: Checkpoint, table: list[Leaf]) -> str:
    """The source whose names the file has most of."""
    hits = {source: sum(leaf.names[source] in checkpoint.shapes for leaf in table) for source in SOURCES}
    source = max(hits, key=lambda name: hits[name])
    if not hits[source]:
        some = ", ".join(list(checkpoint.shapes)[:3]) or "nothing"
        raise UsageError(
            f"{checkpoint.path} has no names of an EfficientNet of timm, torchvision or Keras: {some}"
        )
    return source


def _shape(leaf: Leaf, source: str, shapes: Mapping[tuple[str, ...], Any]) -> tuple[int, ...]:
    """What shape the leaf must have in the file."""
    change = leaf.layout.to_keras if source == "keras" else leaf.layout.to_torch
    # Of no memory: a view of a single number.
    return change(np.broadcast_to(np.float32(0), shapes[leaf.path].shape)).shape


def _check_names(
    checkpoint: Checkpoint,
    table: list[Leaf],
    source: str,
    shapes: Mapping[tuple[str, ...], Any],
    extra: list[str],
) -> None:
    wanted = {leaf.names[source]: _shape(leaf, source, shapes) for leaf in table}
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
    words = [f"{len(names)} {fault} ({_short(names)})" for fault, names in faults.items() if names]
    if words:
        raise UsageError(f"{checkpoint.path} does not fit this model: {'; '.join(words)}")


def _short(names: list[str]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


def _read(checkpoint: Checkpoint, leaf: Leaf, source: str) -> np.ndarray:
    change = leaf.layout.from_keras if source == "keras" else leaf.layout.from_torch
    return np.ascontiguousarray(change(checkpoint.read(leaf.names[source]))).astype(np.float32)


def _check_usable(path: Path, arrays: Mapping[tuple[str, ...], np.ndarray], epsilon: float) -> None:
    bad = ["/".join(leaf) for leaf, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise UsageError(f"{path} holds numbers that are not finite: {_short(bad)}")
    variances = [array for leaf, array in arrays.items() if leaf[-1] == "var"]
    if any((variance < 0).any() for variance in variances):
        raise UsageError(f"{path} holds negative variances: is it damaged?")
    if all(np.allclose(variance, 1.0 - epsilon, rtol=0, atol=1e-6) for variance in variances):
        raise UsageError(
            f"{path} has its BatchNorm folded into the convolutions (all running variances 1 - {epsilon:g})"
            " and cannot be trained further; use the checkpoint before folding"
        )


def _check_family(name: str, checkpoint: Checkpoint) -> None:
    """Refuses another model, and warns of the other family, where the file's metadata says what it is of."""
    said = checkpoint.metadata.get("architecture", "")
    if said in ARCHITECTURES and said.removeprefix("tf_") != name.removeprefix("tf_"):
        raise UsageError(f"{checkpoint.path} says that it is of {said}, not of {name}: use that architecture")
    if said in ARCHITECTURES and said != name:
        logging.warning(
            "%s says that it is of %s, and is read into %s: the families differ in padding and BatchNorm",
            checkpoint.path,
            said,
            name,
        )
