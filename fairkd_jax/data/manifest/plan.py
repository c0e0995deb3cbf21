"""The plan of your own images: what a manifest lists."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fairkd_jax.data.manifest.table import Table, read_table
from fairkd_jax.data.plan import Entry, Example, Plan, digest, printable
from fairkd_jax.data.source import RawFile, stamp_of
from fairkd_jax.errors import UsageError


def plan(
    *, source: str, size: int, resize: str, class_names: Sequence[str] = (), group_names: Sequence[str] = ()
) -> Plan:
    """Plans the images of a manifest.

    Args:
      source: path of a .csv or .parquet file with the columns path, label, group and split.
      size: side of the stored images in pixels.
      resize: "squash" or "pad".
      class_names: names of the labels in their order; by default those that occur, sorted.
      group_names: the same for the groups.

    Raises:
      UsageError: the manifest is absent or faulty.
    """
    if not source:
        raise UsageError(
            "manifest needs a source: the path of a CSV or Parquet file with path,label,group,split"
        )
    path = Path(source).expanduser().absolute()
    if not path.is_file():
        raise UsageError(
            f"there is no manifest at {path}; give the path of a CSV or Parquet file as the source"
        )
    table = read_table(path, class_names=class_names, group_names=group_names)
    stamps = _stamps(table.files)
    absent = [name for name, stamp in zip(table.paths, stamps, strict=True) if stamp is None]
    return Plan(
        name="manifest",
        settings=f"s{size}-{resize}-"
        + digest([path.read_bytes(), *table.class_names, "", *table.group_names]),
        identity=None if absent else digest(filter(None, stamps)),
        source="",
        missing=f"{path} lists {len(absent)} images that are not there; the first is {printable(absent[0])};"
        " its paths are taken relative to the folder of the manifest"
        if absent
        else "",
        size=size,
        resize=resize,
        class_names=table.class_names,
        group_names=table.group_names,
        entries=partial(_entries, table),
    )


def _stamps(files: list[str]) -> list[str | None]:
    return [stamp_of(os.stat(file)) if os.path.isfile(file) else None for file in files]


def _entries(table: Table) -> Iterator[Entry]:
    rows = zip(table.paths, table.files, table.splits, table.labels, table.groups, strict=True)
    for path, file, split, label, group in rows:
        status = os.stat(file)
        raw = RawFile(path, stamp_of(status), status.st_size, Path(file).read_bytes)
        example = Example(path, split, label, group)
        yield Entry(printable(path), raw.stamp, raw.load, example, raw.problem)
