"""Paths and files of prepared data.

The folder `<directory>/<data set>/<settings>[-<source digest>]/<version>/` holds the files of tfds
(ArrayRecord files and their description), `preparation.json` and one `table_<split>.npz` for each split. A
table holds ids, labels, groups and attributes, but no images. `fairkd-prepare` adds a datasheet, and its
content as JSON.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fairkd_jax.data.preparation_plan import ExampleTable, PreparationPlan
from fairkd_jax.errors import UsageError, reading
from fairkd_jax.files import get_home_cache_folder
from fairkd_jax.user_paths import parse_path

VERSION = "1.1.0"
REPORT_NAME = "preparation.json"
DATASHEET_NAME, DESCRIPTION_NAME = "datasheet.md", "counts.json"
HASHES = "hashes"  # column of a table; tables of earlier versions have none
DAMAGED = "the data are damaged: delete that folder, and the data will be prepared again"


def report_damage(folder: Path) -> AbstractContextManager[None]:
    """Returns a context that turns any error in reading prepared data into a one-line UsageError.

    Args:
      folder: Folder of the prepared data.
    """
    return reading(f"the prepared data in {folder}", DAMAGED)


def get_default_directory() -> Path:
    """Returns the default root of prepared data: $FAIRKD_DATA, or ~/.cache/fairkd_jax/datasets.

    Raises:
      UsageError: $FAIRKD_DATA names no path that can be used.
    """
    named = os.environ.get("FAIRKD_DATA")
    return parse_path(named) if named else get_home_cache_folder() / "datasets"


def read_example_table(folder: Path, splits: Iterable[str]) -> ExampleTable:
    """Reads the example table of stored splits, concatenated in the given order.

    Args:
      folder: Folder of the prepared data.
      splits: Names of stored splits, at least one.

    Returns:
      The table, one row for each image.
    """
    parts = []
    for split in splits:
        with np.load(folder / name_table_file(split), allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        parts.append(columns | {"splits": np.full(len(columns["ids"]), split, dtype="<U5")})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = {name: joined.pop(name) for name in ("ids", "splits", "labels", "groups")}
    return ExampleTable(**known, hashes=joined.pop(HASHES, None), attributes=joined)


def name_table_file(split: str) -> str:
    """Returns the name of the file that holds the example table of a split."""
    return f"table_{split}.npz"


def is_prepared(folder: Path) -> bool:
    """Returns whether a folder holds a complete data set.

    A folder gets its final name only after all of its files are written.
    """
    return (folder / "dataset_info.json").is_file() and (folder / REPORT_NAME).is_file()


def read_report(folder: Path) -> dict[str, Any]:
    """Reads the report of a preparation.

    Args:
      folder: Folder of the prepared data.

    Returns:
      A dict with at least the keys total, skipped, source and prepared_at.

    Raises:
      UsageError: The report is damaged.
    """
    with reading(str(folder / REPORT_NAME), DAMAGED):
        report = json.loads((folder / REPORT_NAME).read_text())
        return {key: report[key] for key in ("total", "skipped", "source", "prepared_at")} | report


def find_prepared_folder(plan: PreparationPlan, directory: Path) -> Path:
    """Finds the folder of a plan's prepared data.

    The folder does not have to exist if the source is available. Without the source, the function searches
    the folders that were prepared with the same settings.

    Args:
      plan: Preparation plan of the data set.
      directory: Root of prepared data.

    Returns:
      The folder. Of several preparations from one source, the latest.

    Raises:
      UsageError: The source is not available, and there is no such folder, or there are folders from several
        sources.
    """
    root = directory / plan.name
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    if plan.source_digest is not None:
        return _find_earlier_folder(plan, root, names) or root / plan.config_name / VERSION
    pattern = re.compile(re.escape(plan.settings) + "-[0-9a-f]{10,12}")
    folders = [root / name / VERSION for name in names if pattern.fullmatch(name)]
    found = [
        folder
        for folder in folders
        if is_prepared(folder)
        and plan.source in ("", read_report(folder)["source"])
        and plan.origin == read_report(folder).get("origin", plan.origin)  # earlier versions kept none
    ]
    sources = {read_report(folder)["source"] for folder in found}
    if len(sources) > 1:
        listed = ", ".join(str(folder) for folder in found)
        raise UsageError(
            f"{plan.name} was prepared from several sources ({listed}); give the source to choose one"
        )
    if not found:
        raise UsageError(plan.missing_message)
    # A source that has changed may have been prepared more than once.
    return max(found, key=lambda folder: read_report(folder)["prepared_at"])


def _find_earlier_folder(plan: PreparationPlan, root: Path, names: Iterable[str]) -> Path | None:
    """Finds the folder of a source that an earlier version has prepared, without reading an image."""
    if plan.earlier_digest is None or not any(re.fullmatch(r".+-[0-9a-f]{10}", name) for name in names):
        return None
    folder = root / f"{plan.settings}-{plan.earlier_digest()}" / VERSION
    if not is_prepared(folder):
        return None
    logging.info(
        "%s: not checked whether the images of the source are those that an earlier version prepared", folder
    )
    return folder
