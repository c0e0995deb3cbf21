"""Global arrays over a named mesh: the same program for a single device and for many."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Batch, Tree


def make_mesh(devices: Sequence[jax.Device] | None = None, *, members: int = 1) -> Mesh:
    """Makes a mesh with the axes `data` and `population`.

    Args:
      devices: Devices of the mesh; by default all devices of all processes.
      members: Number of members of a population. The axis `population` has the greatest common divisor of
        this number and the number of a process's devices; the axis `data` takes all other devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    own = sum(device.process_index == devices[0].process_index for device in devices)
    across = math.gcd(members, own)
    # Each process holds all members and its own part of the batch, so it reads that part of the data alone.
    grid = np.asarray(devices).reshape(-1, across)
    # Explicit axes, the default, break flax's Dropout.
    return Mesh(grid, ("data", "population"), axis_types=(AxisType.Auto,) * 2)


def make_batch_sharding(mesh: Mesh) -> NamedSharding:
    """Makes the sharding that splits the leading axis over the devices that share a batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def make_member_sharding(mesh: Mesh) -> NamedSharding:
    """Makes the sharding that splits the leading axis over the devices that share a population."""
    return NamedSharding(mesh, PartitionSpec("population"))


def count_batch_parts(mesh: Mesh) -> int:
    """Returns the number of devices over which a batch is split."""
    return mesh.shape["data"]


def make_replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Makes the sharding that keeps a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Checks that a global batch size divides by the number of devices.

    Args:
      name: Name of the size, for the message.
      size: Number of images in a global batch.
      mesh: The devices.

    Raises:
      UsageError: The size does not divide; the message names the next sizes that divide.
    """
    devices = count_batch_parts(mesh)
    if size < 1 or size % devices:
        below, above = size // devices * devices, (size // devices + 1) * devices
        choice = f"{below} or {above}" if below > 0 else f"{above}"
        raise UsageError(f"{name}={size} does not divide by {devices} devices; use {choice}")


def to_global(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> Batch:
    """Makes global arrays from this process's part of a batch.

    Args:
      batch: Host arrays by name, the part of this process.
      sharding: Sharding of the global arrays.
    """
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Copies host values or local arrays to every device; all processes must have the same values."""
    return jax.device_put(tree, make_replicated_sharding(mesh))


def make_abstract_arrays(mesh: Mesh, tree: Tree) -> Tree:
    """Returns the shapes and dtypes of arrays as `ShapeDtypeStruct`, with a copy on every device."""
    sharding = make_replicated_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
