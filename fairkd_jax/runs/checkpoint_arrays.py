"""The arrays of a checkpoint: how they are saved, and whether they fit."""

from typing import Any

import jax
import orbax.checkpoint as ocp

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Tree


class MisfitError(UsageError):
    """A checkpoint is whole, and belongs to another configuration."""


def make_save_args(tree: Tree) -> ocp.args.StandardSave:
    """Makes the arguments that save a tree, with a single copy of each array that a process holds.

    Orbax would else cut each array into a slice for each copy, so that each device writes its slice. For some
    hundred small arrays, this takes three times as long.

    Args:
      tree: Arrays.
    """

    def take_copy(array: Any) -> Any:
        here = isinstance(array, jax.Array) and array.is_fully_addressable and array.is_fully_replicated
        return array.addressable_data(0) if here else array

    return ocp.args.StandardSave(jax.tree.map(take_copy, tree))


def describe_arrays(tree: Tree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns the shape and dtype of each array by its path in dicts, tuples and dataclasses.

    Args:
      tree: Arrays, or descriptions of arrays.
    """

    def get_name(entry: Any) -> str:
        return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(get_name(entry) for entry in path): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in leaves
    }


def check_equal_arrays(stored: dict[str, Any], wanted: dict[str, Any], item: str) -> None:
    """Checks that two descriptions of arrays are equal; Orbax would cast another dtype silently.

    Args:
      stored: Shape and dtype of each stored array, by its path.
      wanted: The same of the arrays to fill.
      item: Name of the part of the checkpoint.

    Raises:
      MisfitError: They differ.
    """
    differing = sorted(path for path in stored.keys() | wanted.keys() if stored.get(path) != wanted.get(path))
    if differing:
        path = differing[0]
        raise MisfitError(
            f"the checkpoint's {item} does not fit this configuration: {len(differing)} arrays differ, first "
            f"{path}: stored {stored.get(path, 'nothing')}, wanted {wanted.get(path, 'nothing')}"
        )
