"""Confusion counts of every group, accumulated on the device as integers."""

import jax
import jax.numpy as jnp


def group_counts(
    group: jax.Array,
    label: jax.Array,
    prediction: jax.Array,
    mask: jax.Array,
    *,
    num_groups: int,
    num_classes: int,
) -> jax.Array:
    """Counts the examples of every (group, label, prediction); counts of several batches can be added.

    Args:
      group: Groups, int [B] in [0, num_groups); -1 where unknown.
      label: Labels, int [B] in [0, num_classes).
      prediction: Predicted classes, int [B] in [0, num_classes).
      mask: Mask [B], 0 where the row is padding and must not be counted.
      num_groups: Number of groups, G.
      num_classes: Number of classes, C.

    Returns:
      Counts, int32 [G + 1, C, C]. The last row holds the examples of unknown group. Examples whose label or
      prediction is out of range are not counted.
    """
    # A negative index would wrap to the end of the axis instead of being dropped.
    known = (group >= 0) & (group < num_groups)
    row = jnp.where(known, group, num_groups)
    valid = (mask != 0) & (label >= 0) & (prediction >= 0)
    zeros = jnp.zeros((num_groups + 1, num_classes, num_classes), jnp.int32)
    return zeros.at[row, jnp.where(valid, label, num_classes), jnp.where(valid, prediction, num_classes)].add(
        1, mode="drop"
    )
