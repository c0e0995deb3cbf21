"""Reader and checks of a manifest, a table with the columns path, label, group and split."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import compute, csv, parquet

from fairkd_jax.data.manifest.missing_values import check_missing, warn_of_twins
from fairkd_jax.data.preparation_plan import SPLITS, escape_unprintable
from fairkd_jax.errors import UsageError
from fairkd_jax.natural_order import sort_names

T = TypeVar("T")
COLUMNS = ("path", "label", "group", "split")


@dataclass(frozen=True)
class ManifestTable:
    """A checked manifest; every list has one item per row.

    Attributes:
      paths: Paths as written in the manifest.
      files: Absolute, normalised paths.
      splits: Names of splits, items of SPLITS.
      labels: Indices into `class_names`.
      groups: Indices into `group_names`; -1 = unknown.
      class_names: Names of the labels.
      group_names: Names of the groups.
    """

    paths: list[str]
    files: list[str]
    splits: list[str]
    labels: list[int]
    groups: list[int]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]


def read_manifest(
    manifest: Path,
    *,
    class_names: Sequence[str] = (),
    group_names: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> ManifestTable:
    """Reads a manifest and checks everything except the images.

    Args:
      manifest: Path of a .csv or .parquet file. Its image paths are absolute, or relative to its folder.
      class_names: Names of the labels in order. Empty: the names in the manifest, in natural order.
      group_names: Names of the groups in order. Empty: the names in the manifest, in natural order. An empty
        cell in the group column means an unknown group.
      missing: Texts that mean a missing value, as an empty cell does.

    Raises:
      UsageError: The manifest has a fault. The message names the first fault and its row; row 1 is the first
        row below the header.
    """
    columns = _read_columns(manifest)
    if "" in columns["path"]:
        row = columns["path"].index("") + 1
        raise UsageError(f"{manifest}, row {row}: the path is empty; give the path of an image")
    labels, groups, splits = (
        ["" if cell.strip() in missing else cell.strip() for cell in columns[name]] for name in COLUMNS[1:]
    )
    check_missing(manifest, "label", labels, class_names)
    check_missing(manifest, "group", groups, group_names)
    classes = _choose_names("class_names", class_names, labels)
    known_groups = _choose_names("group_names", group_names, groups)
    split_table = {"validation": "val", **{split: split for split in SPLITS}}
    table = ManifestTable(
        paths=columns["path"],
        files=[os.path.normpath(manifest.parent / path) for path in columns["path"]],
        splits=_translate_cells(manifest, "split", splits, split_table),
        labels=_translate_cells(manifest, "label", labels, {name: i for i, name in enumerate(classes)}),
        groups=_translate_cells(
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
            present = ", ".join(map(escape_unprintable, table.column_names)) or "none"
            raise UsageError(f"{manifest} must have one column {absent[0]!r}; its columns are: {present}")
        cells = {name: _read_texts(table.column(name)) for name in COLUMNS}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = escape_unprintable(str(error).partition("\n")[0])
        raise UsageError(f"{manifest} cannot be read as CSV (UTF-8) or Parquet: {reason}") from error
    return {name: [cell or "" for cell in column] for name, column in cells.items()}


def _read_texts(column: pa.ChunkedArray) -> list[str | None]:
    """Reads the cells of a column as texts; None for a missing value, which is NaN in a column of numbers."""
    if pa.types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), None, column)
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


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


def _choose_names(option: str, given: Sequence[str], found: list[str]) -> tuple[str, ...]:
    names = tuple(given) or tuple(sort_names(set(found) - {""}))
    warn_of_twins(option, names)
    for name in names:
        if not name or name != name.strip() or not name.isprintable():
            raise UsageError(
                f"{option}: {escape_unprintable(repr(name))} is not a valid name;"
                " use printable text without spaces around it"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"{option} has a name twice: {', '.join(names)}")
    return names


def _translate_cells(manifest: Path, what: str, cells: list[str], table: Mapping[str, T]) -> list[T]:
    for row, cell in enumerate(cells, 1):
        if cell not in table:
            known = ", ".join(name for name in table if name)
            fault = f"unknown {what} {escape_unprintable(cell)!r}" if cell else f"the {what} is empty"
            raise UsageError(f"{manifest}, row {row}: {fault}; use one of {known}")
    return [table[cell] for cell in cells]


def _check_labels(manifest: Path, table: ManifestTable) -> None:
    trained = {label for label, split in zip(table.labels, table.splits, strict=True) if split == "train"}
    if not trained:
        raise UsageError(f"{manifest} has no rows in train; give some rows the split 'train'")
    for row, (label, split) in enumerate(zip(table.labels, table.splits, strict=True), 1):
        if label not in trained:
            name = table.class_names[label]
            raise UsageError(
                f"{manifest}, row {row}: label {name!r} occurs in {split} but never in train;"
                " add images of this label to train, or remove the label"
            )


def _check_repeats(manifest: Path, table: ManifestTable) -> None:
    """Checks that a repeated image has the same split, label and group, and is in train."""
    first: dict[str, tuple[int, str, tuple[int, int]]] = {}
    columns = zip(table.files, table.splits, zip(table.labels, table.groups, strict=True), strict=True)
    for row, (file, split, names) in enumerate(columns, 1):
        earlier, other, other_names = first.setdefault(file, (row, split, names))
        path = escape_unprintable(table.paths[row - 1])
        if other_names != names:
            raise UsageError(
                f"{manifest}, row {row}: {path} has another label or group than in row {earlier};"
                " keep one of the two rows"
            )
        if other != split:
            raise UsageError(
                f"{manifest}, row {row}: {path} is in {split} and, in row {earlier}, in {other};"
                " keep the image in one split"
            )
        if earlier != row and split != "train":
            raise UsageError(
                f"{manifest}, row {row}: {path} is also in row {earlier}, and would be measured twice;"
                " keep one of the two rows"
            )
