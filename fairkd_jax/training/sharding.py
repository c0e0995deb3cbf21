"""Global arrays over a named mesh: one program for one device or many."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Batch, Tree


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axis `data` over the given devices, or over all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    # Explicit axes, the default, break flax's Dropout.
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def over_batch(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Keeps a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Checks that a global batch size divides by the number of devices.

    Raises:
      UsageError: it does not; the message names the neighbours that do.
    """
    devices = mesh.size
    if size < 1 or size % devices:
        below, above = size // devices * devices, (size // devices + 1) * devices
        choice = f"{below} or {above}" if below > 0 else f"{above}"
        raise UsageError(f"{name}={size} does not divide by {devices} devices; use {choice}")


def to_global(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> Batch:
    """Makes global arrays of this process's part of a batch."""
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Copies host values or local arrays, the same in every process, to every device."""
    return jax.device_put(tree, replicated(mesh))


def shapes_on(mesh: Mesh, tree: Tree) -> Tree:
    """Shapes and dtypes with a sharding: whole on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
