"""Global arrays over a named mesh: one program for one device or many."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Batch, Tree


def make_mesh(devices: Sequence[jax.Device] | None = None, *, members: int = 1) -> Mesh:
    """A mesh with the axes `data` and `population` over the given devices, or over all of all processes.

    Args:
      devices: all devices by default.
      members: students of a population, which as many devices share as divide both their number and that of a
        process's devices; the others share the batch.
    """
    devices = list(jax.devices() if devices is None else devices)
    own = sum(device.process_index == devices[0].process_index for device in devices)
    across = math.gcd(members, own)
    # A process holds a part of the batch and all students: its part of the data is then its own to make.
    grid = np.asarray(devices).reshape(-1, across)
    # Explicit axes, the default, break flax's Dropout.
    return Mesh(grid, ("data", "population"), axis_types=(AxisType.Auto,) * 2)


def over_batch(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the devices that share a batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def over_members(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the devices that share a population."""
    return NamedSharding(mesh, PartitionSpec("population"))


def batch_parts(mesh: Mesh) -> int:
    """Over how many devices a batch is split."""
    return mesh.shape["data"]


def replicated(mesh: Mesh) -> NamedSharding:
    """Keeps a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Checks that a global batch size divides by the number of devices.

    Raises:
      UsageError: it does not; the message names the neighbours that do.
    """
    devices = batch_parts(mesh)
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
