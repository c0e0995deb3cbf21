"""The data of a run: opened as its config says, and described for later readers."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.data.pipeline import Dataset, get_default_directory, open_dataset
from fairkd_jax.errors import NotPreparedError, UsageError
from fairkd_jax.recipe.sections import DataRecipe, parse_data
from fairkd_jax.runs.folder import CONTENTS, RunConfig, read_run_config
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.versions import NAME_KEYS


def open_data(data: DataRecipe, *, allow_preparation: bool = True) -> Dataset:
    """Opens the prepared data set, and prepares it first where needed.

    Args:
      data: The section of the data.
      allow_preparation: Whether to prepare data that are not prepared.

    Raises:
      NotPreparedError: The data are not prepared, and their preparation is not allowed.
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
        max_file_mib=data.max_file_mib,
        allow_duplicates=data.allow_duplicates,
        by_content=data.by_content,
        allow_preparation=allow_preparation,
        **data.options,
    )


def open_recorded_data(
    workdir: Path, saved: RunConfig, *, allow_preparation: bool = False, **changes: Any
) -> Dataset:
    """Opens the data of a run, which may be a stranger's: it decides on no folder that is read or written.

    Args:
      workdir: The run's folder.
      saved: Its config.
      allow_preparation: Whether to prepare data that are not prepared where the config says. Data without a
        source in the user's own folder of prepared data are always prepared.
      **changes: Fields of the data's section that have another value.

    Raises:
      UsageError: The data are not prepared and must not be, or cannot be read.
    """
    data = dataclasses.replace(parse_recorded_data(saved), **changes)
    allowed = allow_preparation or not (data.directory or data.source)
    try:
        return open_data(data, allow_preparation=allowed)
    except NotPreparedError as error:
        raise UsageError(
            f"{error}, as {RunFolder(workdir).config} says; if this run is yours,"
            f" `fairkd-eval {workdir} --prepare` reads and writes there"
        ) from None


def parse_recorded_data(saved: RunConfig) -> DataRecipe:
    """Reads the `data` section of a run.

    The names of classes and groups that the config leaves open are those that the run has recorded, whatever
    names this version would find in the manifest. The data of a run that recorded no contents of images are
    opened as earlier versions did.

    Args:
      saved: Config of the run.
    """
    return _fill_names(_follow_identity(parse_data(saved.config["data"]), saved), saved)


def keep_recorded(data: DataRecipe, folders: Iterable[Path], teacher: Path | None = None) -> DataRecipe:
    """Returns the section of the data of a training as its earlier start had it, or its teacher.

    Names of classes and groups that the config leaves open are those of the earlier start.

    Args:
      data: The section of the data.
      folders: Folders that may hold a run of this training; the first run counts.
      teacher: Folder of a given teacher, which says whether the contents of images count for a new run.

    Raises:
      UsageError: The config of such a run is damaged.
    """
    found = next((folder for folder in folders if RunFolder(folder).is_run()), None)
    if found is not None:
        saved = read_run_config(found)
        return _fill_names(_follow_identity(data, saved), saved)
    if teacher is not None and RunFolder(teacher).is_run():
        return _follow_identity(data, read_run_config(teacher))
    return data


def _follow_identity(data: DataRecipe, saved: RunConfig) -> DataRecipe:
    return dataclasses.replace(data, by_content=CONTENTS in saved.data_info)


def _fill_names(data: DataRecipe, saved: RunConfig) -> DataRecipe:
    if data.name != "manifest" or saved.config["data"]["name"] != data.name:
        return data
    names = {key: tuple(saved.data_info[key]) for key in NAME_KEYS if not data.options.get(key)}
    return dataclasses.replace(data, options={**data.options, **names})


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Describes a data set for later readers of a run.

    Args:
      dataset: The prepared data set.

    Returns:
      Names of the data set, classes and groups; number of images and digest of each split, and the digest of
      its image files where they are known.
    """
    info = dataset.info
    return ({CONTENTS: dict(info.contents)} if info.contents else {}) | {
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
