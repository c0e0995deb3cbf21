"""The data of a run: opened as its config says, and described for later readers."""

import dataclasses
from typing import Any

import numpy as np

from fairkd_jax.data.pipeline import Dataset, get_default_directory, open_dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.sections import DataRecipe


def open_data(data: DataRecipe) -> Dataset:
    """Opens the prepared data set, and prepares it first where needed.

    Args:
      data: The section of the data.

    Raises:
      UsageError: The data cannot be prepared or read.
    """
    return open_dataset(
        data.name,
        directory=data.directory or get_default_directory(),
        source=data.source,
        size=data.size,
        resize=data.resize,
        quality=data.quality,
        cache=data.cache,
        control=data.control,
        control_seed=data.seed,
        max_bad_fraction=data.max_bad_fraction,
        **data.options,
    )


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Describes a data set for later readers of a run.

    Args:
      dataset: The prepared data set.

    Returns:
      Names of the data set, classes and groups; number of images and digest of each split.
    """
    info = dataset.info
    return {
        "dataset": info.name,
        "class_names": list(info.class_names),
        "group_names": list(info.group_names),
        "num_examples": dict(info.num_examples),
        "digests": {split: dataset.split(split).compute_digest() for split in info.num_examples},
    }


def count_split(data: DataRecipe, split: str) -> tuple[str, np.ndarray]:
    """Counts the images of a split by known group and class.

    Args:
      data: The section of the data.
      split: "train", "val" or "test".

    Returns:
      The data set's name, and the counts, int [G, C].

    Raises:
      UsageError: The split has no images.
    """
    dataset = open_data(dataclasses.replace(data, cache="none"))
    if split not in dataset.info.num_examples:
        raise UsageError(f"{dataset.info.name} has no images in {split}")
    return dataset.info.name, np.asarray(dataset.split(split).counts)
