"""Reading and writing of checkpoint files: names and arrays only, nothing in a file is executed."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from fairkd_jax.errors import MissingExtraError, UsageError, reading
from fairkd_jax.files import write_bytes
from fairkd_jax.near_paths import explain_missing

_ADVICE = "the file is damaged, or not a checkpoint of this kind; download the file again"
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file; shapes are known at once, an array is read on request.

    Attributes:
      path: Path of the file.
      shapes: Shapes of the arrays by name.
      read: Function that reads the array of a name.
      metadata: Texts by name; empty for formats without metadata.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint of any known format.

    Args:
      path: File .safetensors; .h5 or .hdf5 of Keras; .pth, .pt or .bin of PyTorch.

    Returns:
      The content of the file.

    Raises:
      UsageError: The file is absent, of another format, damaged, or holds more than plain arrays.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the checkpoint file in it")
    if not path.is_file():
        raise UsageError(f"there is no checkpoint file {path}{explain_missing(path)}; check the path")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} cannot be read; change the permissions of the file")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _open_safetensors(path)
    if suffix in (".h5", ".hdf5"):
        return _open_hdf5(path)
    if suffix in (".pth", ".pt", ".bin"):
        return _open_torch(path)
    raise UsageError(f"{path} is of another format; use a file .safetensors, .h5 or .pth")


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors file; after an error no partial file remains.

    Args:
      path: File to write or to replace.
      arrays: Arrays by name.
      metadata: Texts by name.

    Raises:
      OSError: The file cannot be written.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, to_safetensors(contiguous, dict(metadata)))


def _open_safetensors(path: Path) -> Checkpoint:
    with reading(str(path), _ADVICE), safe_open(path, framework="np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})

    def read(name: str) -> np.ndarray:
        try:
            with safe_open(path, framework="np") as file:
                return np.asarray(file.get_tensor(name))
        except (SafetensorError, TypeError, ValueError, OSError) as error:
            raise UsageError(f"{path}: {name} cannot be read ({str(error)[:100]}); {_ADVICE}") from error

    return Checkpoint(path, shapes, read, metadata)


def _open_hdf5(path: Path) -> Checkpoint:
    with reading(str(path), _ADVICE), h5py.File(path, "r") as file:
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        # A file of a whole model also holds the optimizer's arrays, beside the group of the weights.
        whole = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
        root = file["model_weights"] if whole else file
        if not isinstance(root, h5py.Group):
            raise UsageError(f"{path}: model_weights is not a group; use a checkpoint of Keras")
        for location, dataset in _walk_datasets(root, 0):
            name = _shorten_keras_name(location)
            if name in found:
                raise UsageError(f"{path} has two arrays for {name}; use a checkpoint of Keras")
            found[name] = (location, tuple(dataset.shape))

    def read(name: str) -> np.ndarray:
        with reading(f"{path}: {name}", _ADVICE), h5py.File(path, "r") as file:
            return np.asarray(file[found[name][0]])

    return Checkpoint(path, {name: shape for name, (_, shape) in found.items()}, read)


def _walk_datasets(group: h5py.Group, depth: int) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields all arrays below a group; follows hard links only, to limited depth: links may form circles."""
    if depth > _MAX_DEPTH:
        raise UsageError(
            f"{group.file.filename} is nested too deeply, or links in a circle; use a checkpoint of Keras"
        )
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _walk_datasets(item, depth + 1)
        elif isinstance(item, h5py.Dataset) and item.external is None and not item.is_virtual:
            yield item.name, item


def _shorten_keras_name(location: str) -> str:
    """Shortens `/block1a_dwconv/block1a_dwconv/depthwise_kernel:0` to `block1a_dwconv/kernel`."""
    *_, layer, weight = ["", *location.strip("/").split("/")]
    weight = weight.split(":")[0]
    return f"{layer}/{'kernel' if weight == 'depthwise_kernel' else weight}"


def _open_torch(path: Path) -> Checkpoint:
    try:
        import torch
    except ImportError as error:
        what = f"{path} is a file of PyTorch; use a .safetensors file of the same weights, as this file needs"
        raise MissingExtraError(what, "torch", error) from error
    advice = "the file is damaged, or holds more than the arrays of a state_dict; save the state_dict alone"
    with reading(str(path), advice):
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise UsageError(f"{path} holds a {type(state).__name__}, not a state_dict; save the state_dict")
        if set(state) & {"state_dict", "model"}:  # training scripts save more than the weights
            state = state.get("state_dict", state.get("model"))
        if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise UsageError(f"{path} holds no plain state_dict of arrays; save the state_dict alone")
        # DataParallel puts "module." before each name.
        state = {str(name).removeprefix("module."): value for name, value in state.items()}
        shapes = {name: tuple(value.shape) for name, value in state.items()}

    def read(name: str) -> np.ndarray:
        value = state[name]
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    return Checkpoint(path, shapes, read)
