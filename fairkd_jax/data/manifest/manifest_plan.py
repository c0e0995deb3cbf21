"""The preparation plan of the user's own images, listed in a manifest."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fairkd_jax.data.copies import check_splits_differ
from fairkd_jax.data.file_hashes import hash_files
from fairkd_jax.data.images import decode_image
from fairkd_jax.data.manifest.manifest_table import ManifestTable, read_manifest
from fairkd_jax.data.preparation_plan import (
    Example,
    PreparationPlan,
    SourceImage,
    escape_unprintable,
    hash_parts,
)
from fairkd_jax.data.raw_files import RawFile, digest_source, make_earlier_stamp
from fairkd_jax.errors import UsageError
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.user_paths import parse_path


def plan_manifest(
    *,
    source: str,
    size: int,
    resize: str,
    class_names: Sequence[str] = (),
    group_names: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> PreparationPlan:
    """Plans the preparation of the images in a manifest.

    Args:
      source: Path of a .csv or .parquet file with the columns path, label, group and split.
      size: Side of the stored images in pixels.
      resize: "squash" or "pad".
      class_names: Names of the labels in order. Empty: the names in the manifest, in natural order.
      group_names: Names of the groups in order. Empty: the names in the manifest, in natural order.
      missing: Texts that mean a missing value, as an empty cell does.

    Raises:
      UsageError: The manifest does not exist or has a fault.
    """
    if not source:
        raise UsageError(
            "manifest needs a source: the path of a CSV or Parquet file with path,label,group,split"
        )
    path = parse_path(source).absolute()
    if not path.is_file():
        where = "" if path.exists() else explain_missing(path)
        raise UsageError(
            f"there is no manifest at {path}{where}; give the path of a CSV or Parquet file as the source"
        )
    table = read_manifest(path, class_names=class_names, group_names=group_names, missing=missing)
    absent = [row for row, file in enumerate(table.files) if not os.path.isfile(file)]
    return PreparationPlan(
        name="manifest",
        settings=f"s{size}-{resize}-"
        + hash_parts(
            # Without such texts, the hash is that of earlier versions.
            [
                path.read_bytes(),
                *table.class_names,
                "",
                *table.group_names,
                *(["", *missing] if missing else ()),
            ]
        ),
        source_digest=None if absent else lambda: digest_source(hash_files(table.files, path)),
        earlier_digest=partial(_compute_earlier_digest, table),
        check_copies=partial(_check_copies, table, path),
        source="",
        origin=str(path),
        num_train=table.splits.count("train"),
        missing_message=_explain_absent_images(path, table, absent) if absent else "",
        size=size,
        resize=resize,
        class_names=table.class_names,
        group_names=table.group_names,
        list_images=partial(_list_images, table, path),
    )


def _explain_absent_images(manifest: Path, table: ManifestTable, absent: list[int]) -> str:
    first = table.paths[absent[0]]
    near = escape_unprintable(explain_missing(Path(table.files[absent[0]])))
    return (
        f"{manifest} lists {len(absent)} images that do not exist;"
        f" the first is {escape_unprintable(first)}{near};"
        " correct the paths, which are relative to the folder of the manifest"
    )


def _compute_earlier_digest(table: ManifestTable) -> str:
    return hash_parts(make_earlier_stamp(os.stat(file)) for file in table.files)


def _check_copies(table: ManifestTable, manifest: Path) -> None:
    def is_usable(row: int) -> bool:
        """Returns whether an image will not be skipped: equal files that are damaged are no copies."""
        try:
            decode_image(Path(table.files[row]).read_bytes(), size=8, resize="squash")
        except Exception:
            return False
        return True

    hashes = hash_files(table.files, manifest)
    check_splits_differ(table.paths, table.splits, hashes, str(manifest), is_usable)


def _list_images(table: ManifestTable, manifest: Path, max_bytes: int) -> Iterator[SourceImage]:
    hashes = hash_files(table.files, manifest)
    rows = zip(table.paths, table.files, hashes, table.splits, table.labels, table.groups, strict=True)
    for path, file, digest, split, label, group in rows:
        raw = RawFile(path, digest, os.stat(file).st_size, Path(file).read_bytes)
        example = Example(path, split, label, group, sha256=digest)
        name, problem = escape_unprintable(path), raw.find_problem(max_bytes)
        yield SourceImage(name, raw.stamp, raw.load, example, problem)
