"""Iterators of batches; a training batch depends only on the seed and the step."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from fairkd_jax.data.sampling import GroupBalance
from fairkd_jax.data.split import Split
from fairkd_jax.errors import UsageError

_AHEAD = 4  # number of prefetched batches
_PLACED = 2  # number of prefetched batches that are already on the devices
_EPOCHS = 2**31  # practically infinite; without a number, Grain's arithmetic overflows at batch size 1


def iterate_train_batches(
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
    """Returns an endless iterator of full training batches, shuffled again in each epoch.

    The global batch of a step is a function of (seed, step). The slices of all processes, concatenated in
    process order, give the same batch for any number of processes. An iterator that starts at a step yields
    the same batches as an iterator that skips the earlier steps. An epoch may end within a batch.

    Args:
      split: Split that the batches are drawn from.
      batch_size: Number of examples in a global batch.
      seed: Random seed of the order, 0 to 2**32 - 1.
      start_step: First step that is yielded.
      process_index: Index of this process's slice of each batch.
      process_count: Number of processes, and of slices.
      with_images: Whether a batch holds images. Indices are enough where all images are on the device.
      balanced: Whether the groups of a class are drawn equally often (see `GroupBalance`).
      place: Function that moves a batch to the devices, called by a background thread; None: no move.

    Returns:
      An iterator of dicts: image uint8 [b, S, S, 3]; label, group and index int32 [b]; mask float32 [b], all
      ones, where b = batch_size / process_count. With `place`, an iterator of that function's results.

    Raises:
      UsageError: batch_size does not divide by process_count or exceeds the split, or a number is out of
        range.
    """
    local = _compute_local_size(batch_size, process_index, process_count)
    if batch_size > len(split):
        raise UsageError(
            f"batch_size={batch_size} exceeds the {len(split)} examples of {split.name};"
            f" use at most {len(split)}"
        )
    _check_position(seed, start_step)
    steps = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat(_EPOCHS).batch(batch_size)
    if balanced:
        steps = steps.random_map(GroupBalance(split.labels, split.groups, split.counts.shape))
    first = process_index * local
    batches = _prefetch_batches(
        steps[start_step:].map(
            lambda indices: _make_batch(split, indices[first : first + local], local, with_images)
        )
    )
    if place is not None:
        batches = grain.experimental.ThreadPrefetchIterDataset(
            batches.map(place), prefetch_buffer_size=_PLACED
        )
    return iter(batches)


def iterate_eval_batches(
    split: Split, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Returns an iterator of batches that holds every example once, in stored order.

    Each process yields the same number of batches.

    Args:
      split: Split that is read.
      batch_size: Number of examples in a global batch.
      process_index: Index of this process's slice of each batch.
      process_count: Number of processes, and of slices.

    Returns:
      An iterator of dicts with the keys of `iterate_train_batches`. The last batch is padded with black
      images: their mask is 0, their index and group are -1, and their label is 0.

    Raises:
      UsageError: batch_size does not divide by process_count.
    """
    local = _compute_local_size(batch_size, process_index, process_count)

    def make_batch(step: int) -> dict[str, np.ndarray]:
        start = min(step * batch_size + process_index * local, len(split))
        return _make_batch(split, np.arange(start, min(start + local, len(split))), local)

    steps = -(-len(split) // batch_size)
    return iter(_prefetch_batches(grain.MapDataset.range(steps).map(make_batch)))


def _check_position(seed: int, start_step: int) -> None:
    if not 0 <= seed < 2**32:
        raise UsageError(f"data seed {seed} is out of range; use 0 to 2**32 - 1")
    if start_step < 0:
        raise UsageError(f"start_step={start_step} is negative; use 0 or more")


def _compute_local_size(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        lower, upper = (max(1, batch_size // max(1, process_count) + up) * process_count for up in (0, 1))
        raise UsageError(
            f"batch_size={batch_size} does not divide by {process_count} processes; use {lower} or {upper}"
        )
    if not 0 <= process_index < process_count:
        raise UsageError(f"process_index={process_index} is out of range; use 0 to {process_count - 1}")
    return batch_size // process_count


def _make_batch(
    split: Split, indices: np.ndarray, size: int, with_images: bool = True
) -> dict[str, np.ndarray]:
    padding = (0, size - len(indices))
    batch = {}
    if with_images:
        images = split.read_images(indices)
        batch["image"] = np.pad(images, (padding, (0, 0), (0, 0), (0, 0))) if padding[1] else images
    return batch | {
        "label": np.pad(split.labels[indices], padding),
        "group": np.pad(split.groups[indices], padding, constant_values=-1),
        "index": np.pad(indices.astype(np.int32), padding, constant_values=-1),
        "mask": np.pad(np.ones(len(indices), np.float32), padding),
    }


def _prefetch_batches(dataset: Any) -> Any:
    threads = min(_AHEAD, os.cpu_count() or 1)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD))
