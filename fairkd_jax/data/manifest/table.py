"""Reads and checks a manifest: a table with the columns path, label, group and split."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import csv, parquet

from fairkd_jax.data.plan import SPLITS, printable
from fairkd_jax.errors import UsageError

T = TypeVar("T")
COLUMNS = ("path", "label", "group", "split")


@dataclass(frozen=True)
class Table:
    """A checked manifest; every list has one item per row.

    Attributes:
      paths: as written.
      files: absolute and normalised.
      splits: items of SPLITS.
      labels: indices into `class_names`.
      groups: indices into `group_names`, -1 = unknown.
      class_names: names of the labels.
      group_names: names of the groups.
    """

    paths: list[str]
    files: list[str]
    splits: list[str]
    labels: list[int]
    groups: list[int]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]


def read_table(manifest: Path, *, class_names: Sequence[str] = (), group_names: Sequence[str] = ()) -> Table:
    """Reads a manifest and checks everything but the images themselves.

    Args:
      manifest: a .csv or .parquet file; its paths are absolute or relative to its folder.
      class_names: names of the labels in their order; by default those that occur, sorted.
      group_names: the same for the groups; an empty group means unknown.

    Raises:
      UsageError: the first fault found, with its row; the first row below the header is row 1.
    """
    columns = _read_columns(manifest)
    if "" in columns["path"]:
        row = columns["path"].index("") + 1
        raise UsageError(f"{manifest}, row {row}: the path is empty; give the path of an image")
    labels, groups, splits = ([cell.strip() for cell in columns[name]] for name in COLUMNS[1:])
    classes = _names("class_names", class_names, labels)
    known_groups = _names("group_names", group_names, groups)
    split_table = {"validation": "val", **{split: split for split in SPLITS}}
    table = Table(
        paths=columns["path"],
        files=[os.path.normpath(manifest.parent / path) for path in columns["path"]],
        splits=_translate(manifest, "split", splits, split_table),
        labels=_translate(manifest, "label", labels, {name: i for i, name in enumerate(classes)}),
        groups=_translate(
            manifest, "group", groups, {"": -1, **{name: i for i, name in enumerate(known_groups)}}
        ),
        class_names=classes,
        group_names=known_groups,
    )
    _check_labels(manifest, table)
    _check_repeats(manifest, table)
    return table


def _read_columns(manifest: Path) -> dict[str, list[str]]:
    try:
        table = _read_parquet(manifest) if manifest.suffix.lower() == ".parquet" else _read_csv(manifest)
        absent = [name for name in COLUMNS if table.column_names.count(name) != 1]
        if absent:
            present = ", ".join(map(printable, table.column_names)) or "none"
            raise UsageError(f"{manifest} must have one column {absent[0]!r}; its columns are: {present}")
        cells = {name: table.column(name).cast(pa.string()).to_pylist() for name in COLUMNS}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = printable(str(error).partition("\n")[0])
        raise UsageError(f"{manifest} cannot be read as CSV (UTF-8) or Parquet: {reason}") from error
    return {name: [cell or "" for cell in column] for name, column in cells.items()}


def _read_parquet(manifest: Path) -> pa.Table:
    with parquet.ParquetFile(manifest) as file:
        return file.read()


def _read_csv(manifest: Path) -> pa.Table:
    return csv.read_csv(
        manifest,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in COLUMNS}, strings_can_be_null=False
        ),
    )


def _names(option: str, given: Sequence[str], found: list[str]) -> tuple[str, ...]:
    names = tuple(given) or tuple(sorted(set(found) - {""}))
    for name in names:
        if not name or name != name.strip() or not name.isprintable():
            raise UsageError(
                f"{option}: {printable(repr(name))} is no name; use printable text without spaces around it"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"{option} has a name twice: {', '.join(names)}")
    return names


def _translate(manifest: Path, what: str, cells: list[str], table: Mapping[str, T]) -> list[T]:
    for row, cell in enumerate(cells, 1):
        if cell not in table:
            known = ", ".join(name for name in table if name)
            fault = f"unknown {what} {printable(cell)!r}" if cell else f"the {what} is empty"
            raise UsageError(f"{manifest}, row {row}: {fault}; use one of {known}")
    return [table[cell] for cell in cells]


def _check_labels(manifest: Path, table: Table) -> None:
    trained = {label for label, split in zip(table.labels, table.splits, strict=True) if split == "train"}
    if not trained:
        raise UsageError(f"{manifest} has no rows in train; give some rows the split 'train'")
    for row, (label, split) in enumerate(zip(table.labels, table.splits, strict=True), 1):
        if label not in trained:
            name = table.class_names[label]
            raise UsageError(
                f"{manifest}, row {row}: label {name!r} occurs in {split} but never in train;"
                " add images of it to train or drop it"
            )


def _check_repeats(manifest: Path, table: Table) -> None:
    """Checks that an image that is listed again is in the same split, with the same label and group."""
    first: dict[str, tuple[int, str, tuple[int, int]]] = {}
    columns = zip(table.files, table.splits, zip(table.labels, table.groups, strict=True), strict=True)
    for row, (file, split, names) in enumerate(columns, 1):
        earlier, other, other_names = first.setdefault(file, (row, split, names))
        path = printable(table.paths[row - 1])
        if other_names != names:
            raise UsageError(
                f"{manifest}, row {row}: {path} has another label or group than in row {earlier};"
                " keep one of them"
            )
        if other != split:
            raise UsageError(
                f"{manifest}, row {row}: {path} is in {split} and, in row {earlier}, in {other};"
                " keep it in one split"
            )
        if earlier != row and split != "train":
            raise UsageError(
                f"{manifest}, row {row}: {path} is in row {earlier} already, and would be measured"
                " twice; keep one of them"
            )
