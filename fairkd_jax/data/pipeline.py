"""Access to data sets; the first access prepares a data set."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fairkd_jax.data.catalog import DATASETS, make_plan
from fairkd_jax.data.controls import CONTROLS
from fairkd_jax.data.copies import (
    CopySet,
    check_splits_differ,
    describe_copies,
    leave_out_copies,
    list_copies,
)
from fairkd_jax.data.layout import (
    DAMAGED,
    get_default_directory,
    read_example_table,
    read_report,
    report_damage,
)
from fairkd_jax.data.preparation_plan import DEFAULT_MAX_FILE_BYTES, SPLITS, ExampleTable, PreparationPlan
from fairkd_jax.data.prepare import prepare_dataset
from fairkd_jax.data.split import CACHE_MODES, Split
from fairkd_jax.digests import check_changed_files
from fairkd_jax.errors import UsageError
from fairkd_jax.user_paths import parse_path

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetInfo",
    "Split",
    "get_default_directory",
    "open_dataset",
]


@dataclass(frozen=True)
class DatasetInfo:
    """Names and sizes of a data set.

    Attributes:
      name: Name of the data set.
      class_names: Names of the labels.
      group_names: Names of the groups.
      size: Side of the images in pixels.
      num_examples: Number of examples of each split, by name. Empty splits are absent.
      directory: Folder of the prepared data.
      copies: Equal images of the source.
      contents: Digest of the image files of each split, by name; empty where they are not known.
    """

    name: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    size: int
    num_examples: dict[str, int]
    directory: str
    copies: tuple[CopySet, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)


class Dataset:
    """A prepared data set.

    Attributes:
      info: Names and sizes of the data set.
    """

    def __init__(
        self,
        builder: Any,
        info: DatasetInfo,
        table: ExampleTable,
        *,
        cache: str,
        control: str,
        control_seed: int,
    ) -> None:
        """Wraps a tfds builder whose data is prepared; see `open_dataset`.

        Args:
          builder: tfds builder of the stored data.
          info: Names and sizes of the data set.
          table: Table of all stored images, one stored split after the other. Its splits are the splits after
            the data set's rules, which may differ from the stored splits.
          cache: Mode of the image cache; see `Split`.
          control: Name of the control experiment; see `open_dataset`.
          control_seed: Random seed of the control experiment.
        """
        self.info = info
        self._builder, self._table, self._cache = builder, table, cache
        self._control, self._control_seed = control, control_seed
        self._splits: dict[str, Split] = {}

    def split(self, name: str) -> Split:
        """Returns a split.

        Every call returns the same object, so the decoded images are in memory only once.

        Args:
          name: "train", "val" or "test".

        Raises:
          UsageError: The data set has no examples in this split.
        """
        if name not in self.info.num_examples:
            known = ", ".join(self.info.num_examples)
            raise UsageError(f"{self.info.name} has no examples in split {name!r}; use one of {known}")
        if name not in self._splits:
            self._splits[name] = self._open_split(name)
        return self._splits[name]

    def _open_split(self, name: str) -> Split:
        rows = np.flatnonzero(self._table.splits == name)
        shape = (len(self.info.group_names), len(self.info.class_names))
        folder = Path(self.info.directory)
        with report_damage(folder):
            records = _StoredRecords(self._builder, rows)
        table = self._table.select_rows(rows)
        split = Split(
            records,
            table,
            folder,
            name,
            size=self.info.size,
            shape=shape,
            cache=self._cache,
            patched=self._control == "patch",
        )
        if self._control == "shuffle" and name == "train":
            split.shuffle_groups(self._control_seed)
        return split


class _StoredRecords(Sequence[dict]):
    """Random access to selected stored images; row numbers continue from one stored split to the next."""

    def __init__(self, builder: Any, rows: np.ndarray) -> None:
        import tensorflow_datasets as tfds

        stored = builder.info.splits
        self._ends = np.cumsum([stored[name].num_examples for name in _list_stored_splits(builder)])
        self._rows = rows
        used = np.unique(np.searchsorted(self._ends, rows, side="right"))
        names = _list_stored_splits(builder)
        self._sources = {
            part: builder.as_data_source(names[part], decoders={"image": tfds.decode.SkipDecoding()})
            for part in used.tolist()
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self._sources[part][int(row - (self._ends[part - 1] if part else 0))]


def _list_stored_splits(builder: Any) -> list[str]:
    return [name for name in SPLITS if name in builder.info.splits]


def open_dataset(
    name: str,
    *,
    directory: str | os.PathLike[str] = "",
    source: str = "",
    size: int,
    resize: str = "squash",
    quality: int = 0,
    max_bad_fraction: float = 0.01,
    max_file_mib: float = DEFAULT_MAX_FILE_BYTES / 2**20,
    allow_duplicates: bool = False,
    by_content: bool = True,
    allow_preparation: bool = True,
    cache: str = "auto",
    control: str = "none",
    control_seed: int = 0,
    **options: Any,
) -> Dataset:
    """Opens a data set; the first call prepares the data set from its source.

    Args:
      name: Key of DATASETS.
      directory: Root of prepared data; `get_default_directory()` if empty.
      source: Path of the archive, folder or manifest of the images. Not needed once the data set is prepared.
      size: Side of the images in pixels.
      resize: "squash" stretches images to the square; "pad" keeps the aspect ratio.
      quality: JPEG quality of the stored images, 1 to 100. 0 stores PNG, which is lossless.
      max_bad_fraction: Largest share of the source's files that may be malformed or unreadable.
      max_file_mib: Largest size of an image file in MiB; a larger file is skipped.
      allow_duplicates: Whether equal images stay in two splits. Otherwise a manifest with such images is
        refused; of a published data set, a copy leaves train and val.
      by_content: Whether the bytes of the images count. False opens the data of an earlier version's run,
        which knew names alone: all copies stay, and `contents` is empty.
      allow_preparation: Whether to prepare data that are not prepared.
      cache: Place of the decoded images: "device", "host", "none" or "auto"; see `Split`.
      control: Control experiment. "patch" paints a patch that shows the group into every image; "shuffle"
        permutes the groups of the training split within each class; "none" changes nothing. The stored data
        stay unchanged.
      control_seed: Random seed of the "shuffle" control.
      **options: The data set's own options; see its `plan_...` function.

    Raises:
      NotPreparedError: The data are not prepared, and their preparation is not allowed.
      UsageError: An argument, the source or the prepared data has a fault that the user can correct.
    """
    _check_modes(cache, control)
    form: dict[str, Any] = {"source": source, "size": size, "resize": resize, "quality": quality}
    plan = make_plan(name, **form, max_file_mib=max_file_mib, options=options)
    allowed = allow_duplicates or not by_content
    root = parse_path(directory or get_default_directory()).absolute()
    limits: dict[str, Any] = {"max_bad_fraction": max_bad_fraction, "allow_duplicates": allowed}
    folder = prepare_dataset(plan, root, **limits, allow_preparation=allow_preparation)
    builder, table = _read_prepared(folder)
    if plan.apply_rules is not None:
        table = plan.apply_rules(table)
    table, copies = _handle_copies(plan, table, allowed)
    info = _make_info(plan, table, folder, copies, by_content)
    return Dataset(builder, info, table, cache=cache, control=control, control_seed=control_seed)


def _make_info(
    plan: PreparationPlan, table: ExampleTable, folder: Path, copies: Iterable[Any], by_content: bool
) -> DatasetInfo:
    counts = {split: count for split in SPLITS if (count := int(np.sum(table.splits == split)))}
    contents = _compute_contents(table, folder, counts) if by_content else {}
    names = (plan.class_names, plan.group_names)
    return DatasetInfo(plan.name, *names, plan.size, counts, str(folder), tuple(copies), contents)


def _check_modes(cache: str, control: str) -> None:
    if cache not in CACHE_MODES:
        raise UsageError(f"unknown cache {cache!r}; use one of {', '.join(CACHE_MODES)}")
    if control not in CONTROLS:
        raise UsageError(f"unknown control {control!r}; use one of {', '.join(CONTROLS)}")


def _read_prepared(folder: Path) -> tuple[Any, ExampleTable]:
    """Returns the tfds builder of the prepared data in a folder, and the table of all stored images."""
    check_changed_files(folder, DAMAGED)
    import tensorflow_datasets as tfds

    with report_damage(folder):
        builder = tfds.builder_from_directory(folder)
        return builder, read_example_table(folder, _list_stored_splits(builder))


def _handle_copies(
    plan: PreparationPlan, table: ExampleTable, allowed: bool
) -> tuple[ExampleTable, list[CopySet]]:
    """Refuses equal images in two splits, or leaves them out of train and val; returns all of them too."""
    if table.hashes is None:
        return table, []
    if allowed:
        return table, list_copies(table)
    if plan.check_copies is not None:
        source = f"the prepared {plan.name} data"
        check_splits_differ(table.ids.tolist(), table.splits.tolist(), table.hashes.tolist(), source)
        return table, list_copies(table)
    table, copies = leave_out_copies(table)
    if text := describe_copies(copies):
        logging.info("%s: %s", plan.name, text)
    return table, copies


def _compute_contents(table: ExampleTable, folder: Path, splits: Iterable[str]) -> dict[str, str]:
    """Computes a digest of each split: of the image files, in order, and the rules that made them pixels."""
    if table.hashes is None:
        return {}
    revision = str(read_report(folder).get("pixels_revision", ""))
    digests = {}
    for split in splits:
        content = hashlib.sha256(revision.encode())
        content.update("".join(table.hashes[table.splits == split].tolist()).encode())
        digests[split] = content.hexdigest()[:16]
    return digests
