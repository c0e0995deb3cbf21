"""Opens data sets; the first time, prepares them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.data.catalog import DATASETS, make_plan
from fairkd_jax.data.controls import CONTROLS
from fairkd_jax.data.layout import default_directory, read_table, usable
from fairkd_jax.data.plan import SPLITS, Table
from fairkd_jax.data.prepare import prepare
from fairkd_jax.data.split import CACHE_MODES, Split
from fairkd_jax.errors import UsageError

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetInfo",
    "Split",
    "default_directory",
    "open_dataset",
]


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set holds.

    Attributes:
      name: the data set's name.
      class_names: names of the labels.
      group_names: names of the groups.
      size: side of the images in pixels.
      num_examples: split -> number of examples; splits without any are absent.
      directory: the folder of the prepared data.
    """

    name: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    size: int
    num_examples: dict[str, int]
    directory: str


class Dataset:
    """A prepared data set.

    Attributes:
      info: what it holds.
    """

    def __init__(
        self, builder: Any, info: DatasetInfo, table: Table, *, cache: str, control: str, control_seed: int
    ) -> None:
        """Wraps a tfds builder whose data is prepared; see `open_dataset`.

        Args:
          builder: of the stored data.
          info: what it holds.
          table: of all stored images, one stored split after the other, with the splits they are used in.
          cache: see `Split`.
          control: see `open_dataset`.
          control_seed: see `open_dataset`.
        """
        self.info = info
        self._builder, self._table, self._cache = builder, table, cache
        self._control, self._control_seed = control, control_seed
        self._splits: dict[str, Split] = {}

    def split(self, name: str) -> Split:
        """Opens a split; the same object each time, so that what it keeps in memory is kept once.

        Raises:
          UsageError: there is no such split.
        """
        if name not in self.info.num_examples:
            known = ", ".join(self.info.num_examples)
            raise UsageError(f"{self.info.name} has no examples in split {name!r}; use one of {known}")
        if name not in self._splits:
            self._splits[name] = self._open(name)
        return self._splits[name]

    def _open(self, name: str) -> Split:
        rows = np.flatnonzero(self._table.splits == name)
        shape = (len(self.info.group_names), len(self.info.class_names))
        folder = Path(self.info.directory)
        with usable(folder):
            records = _Records(self._builder, rows)
        table = self._table.rows(rows)
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


class _Records(Sequence[dict]):
    """Some of all stored images, counted through the stored splits one after the other."""

    def __init__(self, builder: Any, rows: np.ndarray) -> None:
        import tensorflow_datasets as tfds

        stored = builder.info.splits
        self._ends = np.cumsum([stored[name].num_examples for name in _stored_splits(builder)])
        self._rows = rows
        used = np.unique(np.searchsorted(self._ends, rows, side="right"))
        names = _stored_splits(builder)
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


def _stored_splits(builder: Any) -> list[str]:
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
    cache: str = "auto",
    control: str = "none",
    control_seed: int = 0,
    **options: Any,
) -> Dataset:
    """Opens a data set; the first time, prepares it where its source is at hand.

    Args:
      name: a key of DATASETS.
      directory: the root of prepared data; `default_directory()` if empty.
      source: the archive, folder or manifest that holds the images; may be left out once prepared.
      size: side of the images in pixels.
      resize: "squash" stretches to the square, "pad" keeps the aspect.
      quality: of the stored images as JPEG, 1 to 100; 0: PNG, which loses nothing.
      max_bad_fraction: the largest share of the source's files that may be malformed or unreadable.
      cache: "host" keeps decoded images in memory, "none" does not, "auto" does if there is room.
      control: "patch" paints a patch into every image that tells its group; "shuffle" deals the groups of the
        training split out again within each class; "none" does neither. What is stored stays as it is.
      control_seed: of the shuffle.
      **options: the data set's own; see its `plan` function.

    Raises:
      UsageError: whatever the user can mend, in one line.
    """
    if cache not in CACHE_MODES:
        raise UsageError(f"unknown cache {cache!r}; use one of {', '.join(CACHE_MODES)}")
    if control not in CONTROLS:
        raise UsageError(f"unknown control {control!r}; use one of {', '.join(CONTROLS)}")
    plan = make_plan(name, source=source, size=size, resize=resize, quality=quality, options=options)
    root = Path(directory or default_directory()).expanduser().absolute()
    folder = prepare(plan, root, max_bad_fraction=max_bad_fraction)
    import tensorflow_datasets as tfds

    with usable(folder):
        builder = tfds.builder_from_directory(folder)
        table = read_table(folder, _stored_splits(builder))
    if plan.view is not None:
        table = plan.view(table)
    found = {split: int(np.sum(table.splits == split)) for split in SPLITS}
    counts = {split: count for split, count in found.items() if count}
    info = DatasetInfo(name, plan.class_names, plan.group_names, size, counts, str(folder))
    return Dataset(builder, info, table, cache=cache, control=control, control_seed=control_seed)
