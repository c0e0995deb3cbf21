"""Preparation of a data set: stages the images, checks the result, writes ArrayRecord files, renames."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from fairkd_jax.data.images import PIXELS_REVISION
from fairkd_jax.data.layout import find_prepared_folder, is_prepared, read_report
from fairkd_jax.data.preparation_plan import PreparationPlan, hash_parts
from fairkd_jax.data.preparation_progress import PreparationProgress
from fairkd_jax.data.staging import ImageFormat, StagedImages, stage_images
from fairkd_jax.data.writing import write_dataset
from fairkd_jax.errors import NotPreparedError, StorageError, UsageError, writing

_SHOWN = 10


def prepare_dataset(
    plan: PreparationPlan,
    directory: Path,
    *,
    max_bad_fraction: float,
    allow_duplicates: bool = False,
    allow_preparation: bool = True,
) -> Path:
    """Finds the prepared data of a plan, or prepares the data.

    A stopped preparation leaves no final folder, and the next preparation resumes. Without the source, the
    function uses data that was prepared with the same settings.

    Args:
      plan: Preparation plan of the data set.
      directory: Root of prepared data, created if absent.
      max_bad_fraction: Largest share of the source's files that may be malformed or unreadable.
      allow_duplicates: Whether equal images may be in two splits of the user's own.
      allow_preparation: Whether to prepare data that are not prepared.

    Returns:
      The folder of the prepared data.

    Raises:
      NotPreparedError: The data are not prepared, and their preparation is not allowed.
      UsageError: The source is not available, too many of its files are bad, equal images are in two splits,
        no image is left for train, or the folder's path leads through a file.
      StorageError: The disk is full, or a permission is missing.
    """
    folder = find_prepared_folder(plan, directory)
    if is_prepared(folder):
        _check_bad_fraction(read_report(folder), max_bad_fraction)
        return folder
    if not allow_preparation:
        source = f" from {plan.source or plan.origin}" if plan.source or plan.origin else ""
        raise NotPreparedError(f"the {plan.name} data are not prepared in {directory}{source}")
    if plan.check_copies and not allow_duplicates:
        plan.check_copies()
    staging = directory / ".staging" / f"{plan.name}-{plan.settings}-{hash_parts([plan.source], 8)}"
    advice = "choose another folder for prepared data, or set FAIRKD_DATA"
    try:
        with writing(f"prepare {plan.name} in {directory}", advice):
            _stage_and_write(plan, staging, directory, folder, max_bad_fraction)
    except (StorageError, UsageError):
        if not is_prepared(folder):  # otherwise another process has finished the same preparation
            raise
    shutil.rmtree(staging, ignore_errors=True)
    return folder


def _stage_and_write(
    plan: PreparationPlan, staging: Path, directory: Path, folder: Path, max_bad_fraction: float
) -> None:
    progress = PreparationProgress(f"preparing {plan.name}")
    try:
        image_format = ImageFormat(plan.size, plan.resize, plan.quality)
        images = plan.list_images(plan.max_file_bytes)
        staged = stage_images(images, staging, image_format=image_format, progress=progress)
    finally:
        progress.close()
    report = _make_report(plan, staged)
    print(_format_summary(report), file=sys.stderr, flush=True)
    _check_bad_fraction(report, max_bad_fraction)
    write_dataset(plan, staged, directory, folder, report)


def _format_skipped(report: dict[str, Any]) -> list[str]:
    """Returns a line "name: reason" for each skipped file."""
    return [f"{item['name']}: {item['reason']}" for item in report["skipped"]]


def _check_bad_fraction(report: dict[str, Any], max_bad_fraction: float) -> None:
    bad, total = len(report["skipped"]), report["total"]
    if bad and bad > max_bad_fraction * total:
        raise UsageError(
            f"{bad} of {total} files are bad, more than max_bad_fraction={max_bad_fraction:g} allows"
            f" ({_format_first_skipped(report)}); correct the files or raise max_bad_fraction"
        )


def _make_report(plan: PreparationPlan, staged: StagedImages) -> dict[str, Any]:
    return {
        "dataset": plan.name,
        "config": plan.config_name,
        "source": plan.source,
        "origin": plan.origin,
        "pixels_revision": PIXELS_REVISION,
        "prepared_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "total": staged.total,
        "decoded": staged.decoded,
        "reused": staged.reused,
        "skipped": [{"name": name, "reason": reason} for name, reason in staged.skipped],
    }


def _format_summary(report: dict[str, Any]) -> str:
    resumed = f" and found {report['reused']} from an earlier run" if report["reused"] else ""
    line = (
        f"{report['dataset']}: decoded {report['decoded']} images{resumed}; skipped {len(report['skipped'])}"
    )
    return f"{line}: {_format_first_skipped(report)}" if report["skipped"] else line


def _format_first_skipped(report: dict[str, Any]) -> str:
    lines = _format_skipped(report)
    return "; ".join([*lines[:_SHOWN], *(["..."] if len(lines) > _SHOWN else [])])
