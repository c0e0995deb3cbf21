"""Equal images: files with the same bytes, which in two splits let a model be tested on what it has seen."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fairkd_jax.data.preparation_plan import ExampleTable, escape_unprintable
from fairkd_jax.errors import UsageError

_STRENGTH = {"train": 0, "val": 1, "test": 2}  # a copy leaves each split that is weaker than its twin's
_SHOWN = 3


class CopySet(NamedTuple):
    """Equal images.

    Attributes:
      ids: Their ids.
      splits: The split of each image before any was left out.
      is_kept: Whether the image stays in its split.
      labels: The label of each image.
      groups: The group of each image; -1 = unknown.
    """

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    is_kept: tuple[bool, ...]
    labels: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def is_contradictory(self) -> bool:
        """Whether equal images have different labels or groups."""
        return len(set(self.labels)) > 1 or len(set(self.groups)) > 1


def find_equal_rows(hashes: Iterable[str]) -> list[list[int]]:
    """Returns the rows of each set of equal hashes with two rows or more.

    Args:
      hashes: SHA-256 of each image; "" = unknown, which equals no other.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(hashes):
        if digest:
            rows[digest].append(row)
    return [found for found in rows.values() if len(found) > 1]


def check_splits_differ(
    ids: Sequence[str],
    splits: Sequence[str],
    hashes: Sequence[str],
    source: str,
    is_usable: Callable[[int], bool] = lambda row: True,
) -> None:
    """Checks that no image is in two splits, under whatever name.

    Args:
      ids: Name of each image.
      splits: Its split.
      hashes: Its SHA-256; "" = unknown.
      source: Name of the data in the message.
      is_usable: Function that says whether the image of a row can be used; asked for equal images alone.

    Raises:
      UsageError: Equal images are in two splits; the message names some.
    """
    found = [
        rows
        for rows in find_equal_rows(hashes)
        if len({splits[row] for row in rows}) > 1 and is_usable(rows[0])
    ]
    if found:
        shown = [
            " = ".join(f"{escape_unprintable(ids[row])} ({splits[row]})" for row in rows[:_SHOWN])
            for rows in found[:_SHOWN]
        ]
        raise UsageError(
            f"{source}: {len(found)} image{'s are' if len(found) > 1 else ' is'} in two splits under other"
            f" names, such as {'; '.join(shown)}; keep each image in one split, or set"
            " data.allow_duplicates=True"
        )


def leave_out_copies(table: ExampleTable) -> tuple[ExampleTable, list[CopySet]]:
    """Takes each image out of train and val whose copy is in test, and out of train whose copy is in val.

    Args:
      table: Table with hashes.

    Returns:
      The table, in which an image that is left out has the split "", and all sets of equal images.
    """
    assert table.hashes is not None
    splits, copies = table.splits.copy(), []
    for rows in find_equal_rows(table.hashes.tolist()):
        own = [str(table.splits[row]) for row in rows]
        strongest = max(_STRENGTH[split] for split in own)
        kept = [_STRENGTH[split] == strongest for split in own]
        splits[[row for row, stays in zip(rows, kept, strict=True) if not stays]] = ""
        copies.append(_make_set(table, rows, kept))
    return replace(table, splits=splits), copies


def list_copies(table: ExampleTable) -> list[CopySet]:
    """Lists the sets of equal images of a table with hashes, all of which stay."""
    assert table.hashes is not None
    return [_make_set(table, rows, [True] * len(rows)) for rows in find_equal_rows(table.hashes.tolist())]


def _make_set(table: ExampleTable, rows: list[int], kept: list[bool]) -> CopySet:
    columns = (table.ids[rows], table.splits[rows], kept, table.labels[rows], table.groups[rows])
    return CopySet(*(tuple(np.asarray(column).tolist()) for column in columns))


def describe_copies(copies: Sequence[CopySet]) -> str:
    """Describes equal images in one sentence; "" where there are none."""
    if not copies:
        return ""
    across = sum(len(set(copy.splits)) > 1 for copy in copies)
    left_out = sum(not stays for copy in copies for stays in copy.is_kept)
    contradictory = sum(copy.is_contradictory for copy in copies)
    return (
        f"{len(copies)} sets of equal images, {across} across splits, {contradictory} with contradictory"
        f" labels or groups; {left_out} images left out of train and val"
    )
