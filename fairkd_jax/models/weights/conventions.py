"""What libraries do beside the arrays that they publish: epsilon, padding, normalization of images.

A .safetensors file that the package writes says in its metadata what a reader would otherwise have to guess.
"""

import json
import re
from typing import NamedTuple

import numpy as np
from absl import logging

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.files import parse_json
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.models.weights.files import Checkpoint
from fairkd_jax.types import Tree

EPSILONS = (1e-5, 1e-3)  # of all published EfficientNets
_LARGE = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")
# Of the libraries that have one family alone.
_PADDING = {"keras": "SAME", "torchvision": "symmetric"}
# Keras's preprocessing layer, whose name has a number if another model was made before in the same process.
NORMALIZATION = re.compile(r"normalization(_\d+)?/(mean|variance|count)")
# What Keras's published files hold; the entry called variance is the standard deviation.
_KERAS_NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "variance": (0.229, 0.224, 0.225)}
_CLASS_NAMES, _NORM_EPSILON = "class_names", "norm_epsilon"  # keys of the metadata


class Pretrained(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
      variables: Variables `{"params": ..., "batch_stats": ...}`, float32.
      new_head: Whether the file has no head of the wanted size, so that the head was drawn at random.
      class_names: Names of the classes of the file's head in order; empty where the file does not say.
      norm_epsilon: Number that BatchNorm adds to the variance in the library that wrote the file; None for
        the model's own.
    """

    variables: Tree
    new_head: bool
    class_names: tuple[str, ...] = ()
    norm_epsilon: float | None = None


def get_norm_epsilon(name: str, source: str) -> float:
    """Returns the number that a library's BatchNorm adds to the variance in a published network.

    torchvision builds B5, B6 and B7 with 1e-3, and the smaller ones with 1e-5
    (torchvision.models.efficientnet_b5: `norm_layer`). Keras has 1e-3 everywhere. timm has 1e-5, and 1e-3 in
    the networks that it calls `tf_`.

    Args:
      name: Name in `ARCHITECTURES`.
      source: Source of the names in a file: "timm", "torchvision" or "keras".
    """
    if source == "keras":
        return 1e-3
    if source == "torchvision":
        return 1e-3 if name.removeprefix("tf_") in _LARGE else 1e-5
    return ARCHITECTURES[name].bn_epsilon


def make_metadata(name: str, pretrained: Pretrained) -> dict[str, str]:
    """Makes the metadata by which `read_efficientnet` reads a .safetensors file as it was meant.

    Args:
      name: Name of the model, an EfficientNet.
      pretrained: Content of the file; class names are written for a head that is not new.
    """
    epsilon = pretrained.norm_epsilon or ARCHITECTURES[name].bn_epsilon
    metadata = {"architecture": name, _NORM_EPSILON: repr(epsilon)}
    if pretrained.class_names and not pretrained.new_head:
        metadata[_CLASS_NAMES] = json.dumps(pretrained.class_names)
    return metadata


def read_class_names(checkpoint: Checkpoint, num_classes: int) -> tuple[str, ...]:
    """Reads the names of the head's classes; empty where the file does not name each of them.

    Args:
      checkpoint: The file.
      num_classes: Size of its head.
    """
    try:
        names = parse_json(checkpoint.metadata.get(_CLASS_NAMES, "[]"))
    except ValueError:
        return ()
    is_complete = isinstance(names, list) and len(names) == num_classes
    return tuple(names) if is_complete and all(isinstance(name, str) for name in names) else ()


def read_norm_epsilon(checkpoint: Checkpoint, name: str, source: str) -> float | None:
    """Reads the epsilon that the file states, or else that of the library whose names the file has.

    The result is None where this is the model's own epsilon.

    Args:
      checkpoint: The file.
      name: Name of the model, an EfficientNet.
      source: Source of the names in the file.

    Raises:
      UsageError: The file states something else than a small number.
    """
    epsilon = get_norm_epsilon(name, source)
    if (stated := checkpoint.metadata.get(_NORM_EPSILON)) is not None:
        with reading(f"{checkpoint.path}: {_NORM_EPSILON} in its metadata", "it must be a number above 0"):
            epsilon = float(stated)
            if not 0 < epsilon < 1:
                raise ValueError(stated)
    return None if epsilon == ARCHITECTURES[name].bn_epsilon else epsilon


def check_normalization(checkpoint: Checkpoint) -> None:
    """Checks that a Keras file normalizes images by the published numbers, or says nothing of them.

    Args:
      checkpoint: The file.

    Raises:
      UsageError: The file has other numbers: 0 and 1 of an untrained layer, or numbers of other images.
    """
    for name in filter(NORMALIZATION.fullmatch, checkpoint.shapes):
        entry = name.rpartition("/")[2]
        if entry not in _KERAS_NORMALIZATION:
            continue
        found, published = checkpoint.read(name).ravel(), _KERAS_NORMALIZATION[entry]
        if found.shape != (3,) or not np.allclose(found, published, rtol=0, atol=1e-5):
            values = ", ".join(f"{value:.4g}" for value in found[:3])
            raise UsageError(
                f"{checkpoint.path} normalizes images by its own numbers ({name}: {values}), which cannot be"
                f" followed yet; use weights that were trained with ImageNet's {entry} entry, "
                + ", ".join(map(str, published))
            )


def check_family(name: str, checkpoint: Checkpoint, source: str) -> None:
    """Refuses a file whose metadata names another model, and warns of a file of the other family.

    Args:
      name: Name of the model, an EfficientNet.
      checkpoint: The file.
      source: Source of the names in the file.

    Raises:
      UsageError: The file holds the weights of another model.
    """
    stated = checkpoint.metadata.get("architecture", "")
    if stated in ARCHITECTURES and stated.removeprefix("tf_") != name.removeprefix("tf_"):
        raise UsageError(f"{checkpoint.path} holds weights of {stated}, not of {name}; use {stated}")
    pads = ARCHITECTURES[name].padding
    wanted = ARCHITECTURES[stated].padding if stated in ARCHITECTURES else _PADDING.get(source, pads)
    if pads != wanted:
        logging.warning(
            "%s holds weights that were trained with %s padding, and %s has %s padding: the embeddings are"
            " wrong at each border; use the architecture of the other family",
            checkpoint.path,
            wanted,
            name,
            pads,
        )
