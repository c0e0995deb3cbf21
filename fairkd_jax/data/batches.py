"""Batches that depend on the seed and the step alone."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from fairkd_jax.data.sampling import GroupBalance
from fairkd_jax.data.split import Split
from fairkd_jax.errors import UsageError

_AHEAD = 4  # batches that are made before they are asked for
_PLACED = 2  # of these, how many are on the device already
_EPOCHS = 2**31  # as good as for ever; without a number, Grain's own arithmetic overflows at batches of one


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    with_images: bool = True,
    balanced: bool = False,
    place: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> Iterator[Any]:
    """Yields full batches for ever, shuffled anew in each epoch.

    The global batch of a step is a function of (seed, step): the slices of all processes, concatenated in
    their order, are the same batch for any number of processes, and starting at a step is the same as
    skipping the steps before it. An epoch may end within a batch.

    Args:
      split: what to draw from.
      batch_size: examples per global batch.
      seed: of the order, 0 to 2**32 - 1.
      start_step: the first step to yield.
      process_index: which slice of each batch to yield.
      process_count: number of slices.
      with_images: whether a batch holds its images; where they are on the device, its indices are enough.
      balanced: whether the groups of a class are drawn equally often (see `GroupBalance`).
      place: takes a batch to the devices; called in the background, up to `_PLACED` batches ahead.

    Returns:
      An iterator of dicts: image uint8 [b, S, S, 3]; label, group, index int32 [b]; mask float32 [b], ones;
      where b = batch_size / process_count; or of what `place` makes of them.

    Raises:
      UsageError: batch_size does not divide by process_count or exceeds the split, or a number out of range.
    """
    local = _local_size(batch_size, process_index, process_count)
    if batch_size > len(split):
        raise UsageError(
            f"batch_size={batch_size} exceeds the {len(split)} examples of {split.name}; use at most that"
        )
    if not 0 <= seed < 2**32:
        raise UsageError(f"data seed {seed} is out of range; use 0 to 2**32 - 1")
    if start_step < 0:
        raise UsageError(f"start_step={start_step} is negative; use 0 or more")
    steps = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat(_EPOCHS).batch(batch_size)
    if balanced:
        steps = steps.random_map(GroupBalance(split.labels, split.groups, split.counts.shape))
    first = process_index * local
    batches = _prefetched(
        steps[start_step:].map(
            lambda indices: _batch(split, indices[first : first + local], local, with_images)
        )
    )
    if place is not None:
        batches = grain.experimental.ThreadPrefetchIterDataset(
            batches.map(place), prefetch_buffer_size=_PLACED
        )
    return iter(batches)


def eval_batches(
    split: Split, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yields every example once, in order; each process yields the same number of batches.

    Args:
      split: what to read.
      batch_size: examples per global batch.
      process_index: which slice of each batch to yield.
      process_count: number of slices.

    Returns:
      An iterator of dicts as of `train_batches`. The last batch is padded: there mask is 0, index and group
      are -1, label is 0 and the image is black.

    Raises:
      UsageError: batch_size does not divide by process_count.
    """
    local = _local_size(batch_size, process_index, process_count)

    def batch(step: int) -> dict[str, np.ndarray]:
        start = min(step * batch_size + process_index * local, len(split))
        return _batch(split, np.arange(start, min(start + local, len(split))), local)

    steps = -(-len(split) // batch_size)
    return iter(_prefetched(grain.MapDataset.range(steps).map(batch)))


def _local_size(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        lower, upper = (max(1, batch_size // max(1, process_count) + up) * process_count for up in (0, 1))
        raise UsageError(
            f"batch_size={batch_size} does not divide by {process_count} processes; use {lower} or {upper}"
        )
    if not 0 <= process_index < process_count:
        raise UsageError(f"process_index={process_index} is none of {process_count} processes")
    return batch_size // process_count


def _batch(split: Split, indices: np.ndarray, size: int, with_images: bool = True) -> dict[str, np.ndarray]:
    padding = (0, size - len(indices))
    batch = {}
    if with_images:
        images = split.images(indices)
        batch["image"] = np.pad(images, (padding, (0, 0), (0, 0), (0, 0))) if padding[1] else images
    return batch | {
        "label": np.pad(split.labels[indices], padding),
        "group": np.pad(split.groups[indices], padding, constant_values=-1),
        "index": np.pad(indices.astype(np.int32), padding, constant_values=-1),
        "mask": np.pad(np.ones(len(indices), np.float32), padding),
    }


def _prefetched(dataset: Any) -> Any:
    threads = min(_AHEAD, os.cpu_count() or 1)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD))
