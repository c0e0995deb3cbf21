"""Where prepared data lies and what its folder holds.

`<directory>/<data set>/<settings>[-<source>]/<version>/` holds what tfds writes (ArrayRecord files and their
description), `preparation.json` and one `table_<split>.npz` per split: ids, labels and groups, no images.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.data.plan import Plan, Table
from fairkd_jax.errors import UsageError, reading

VERSION = "1.1.0"
REPORT_NAME = "preparation.json"


def usable(folder: Path) -> AbstractContextManager[None]:
    """Says in one line what reading damaged prepared data raises."""
    return reading(
        f"the prepared data in {folder}", "they are damaged: delete that folder, to prepare them anew"
    )


def default_directory() -> Path:
    """Returns where prepared data lies: $FAIRKD_DATA, or ~/.cache/fairkd_jax/datasets."""
    return Path(os.environ.get("FAIRKD_DATA") or "~/.cache/fairkd_jax/datasets").expanduser()


def read_table(folder: Path, splits: Iterable[str]) -> Table:
    """Reads what is known of all images of some stored splits, one split after the other."""
    parts = []
    for split in splits:
        with np.load(folder / table_name(split), allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        parts.append(columns | {"splits": np.full(len(columns["ids"]), split, dtype="<U5")})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = {name: joined.pop(name) for name in ("ids", "splits", "labels", "groups")}
    return Table(**known, attributes=joined)


def table_name(split: str) -> str:
    """Returns the name of the file with ids, labels, groups and further integers of a split."""
    return f"table_{split}.npz"


def is_prepared(folder: Path) -> bool:
    """Says whether a folder holds a complete data set: it got its name when all was written."""
    return (folder / "dataset_info.json").is_file() and (folder / REPORT_NAME).is_file()


def read_report(folder: Path) -> dict[str, Any]:
    """Reads what was said of a preparation: total, skipped, source, when.

    Raises:
      UsageError: it is damaged.
    """
    with usable(folder):
        report = json.loads((folder / REPORT_NAME).read_text())
        return {key: report[key] for key in ("total", "skipped", "source", "prepared_at")} | report


def prepared_folder(plan: Plan, directory: Path) -> Path:
    """Returns the folder of a plan's prepared data, which need not exist if the source is at hand.

    Where the source is not at hand, the folder is found among what was prepared with the same settings.

    Raises:
      UsageError: the source is not at hand, and there is no such folder or more than one.
    """
    root = directory / plan.name
    if plan.identity is not None:
        return root / plan.config_name / VERSION
    pattern = re.compile(re.escape(plan.settings) + "-[0-9a-f]{10}")
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    folders = [root / name / VERSION for name in names if pattern.fullmatch(name)]
    found = [
        folder
        for folder in folders
        if is_prepared(folder) and plan.source in ("", read_report(folder)["source"])
    ]
    sources = {read_report(folder)["source"] for folder in found}
    if len(sources) > 1:
        listed = ", ".join(str(folder) for folder in found)
        raise UsageError(
            f"{plan.name} was prepared from several sources ({listed}); give the source to choose one"
        )
    if not found:
        raise UsageError(plan.missing)
    # One source that has changed since may have been prepared more than once.
    return max(found, key=lambda folder: read_report(folder)["prepared_at"])
