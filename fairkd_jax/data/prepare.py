"""Turns a plan into ArrayRecord files, once: stage, check, write, rename."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from fairkd_jax.data.layout import is_prepared, prepared_folder, read_report
from fairkd_jax.data.plan import Plan, digest
from fairkd_jax.data.progress import Progress
from fairkd_jax.data.staging import Form, Staged, stage
from fairkd_jax.data.writing import write_dataset
from fairkd_jax.errors import UsageError

_SHOWN = 10


def prepare(plan: Plan, directory: Path, *, max_bad_fraction: float) -> Path:
    """Finds the prepared data of a plan, or prepares it.

    A killed preparation leaves nothing final, and the next one goes on where it stopped. Where the source is
    not at hand, data that was prepared from it with the same settings is used.

    Args:
      plan: what to prepare.
      directory: the root of prepared data; made if absent.
      max_bad_fraction: the largest share of the source's files that may be malformed or unreadable.

    Returns:
      The folder of the prepared data.

    Raises:
      UsageError: the source is not at hand, too much of it is bad, or it holds nothing to train on.
    """
    folder = prepared_folder(plan, directory)
    if is_prepared(folder):
        _check_bad_fraction(read_report(folder), max_bad_fraction)
        return folder
    staging = directory / ".staging" / f"{plan.name}-{plan.settings}-{digest([plan.source], 8)}"
    try:
        _stage_and_write(plan, staging, directory, folder, max_bad_fraction)
    except OSError as error:
        if not is_prepared(folder):  # otherwise another process was faster and has removed the staged files
            raise UsageError(
                f"cannot prepare {plan.name} in {directory}: {error.strerror or error}; choose another folder"
                " for prepared data, or set FAIRKD_DATA"
            ) from error
    shutil.rmtree(staging, ignore_errors=True)
    return folder


def _stage_and_write(
    plan: Plan, staging: Path, directory: Path, folder: Path, max_bad_fraction: float
) -> None:
    progress = Progress(f"preparing {plan.name}")
    try:
        form = Form(plan.size, plan.resize, plan.quality)
        staged = stage(plan.entries(), staging, form=form, progress=progress)
    finally:
        progress.close()
    report = _report(plan, staged)
    print(_summary(report), file=sys.stderr, flush=True)
    _check_bad_fraction(report, max_bad_fraction)
    write_dataset(plan, staged, directory, folder, report)


def skipped_lines(report: dict[str, Any]) -> list[str]:
    """Returns "name: reason" of each file that a preparation has left out."""
    return [f"{item['name']}: {item['reason']}" for item in report["skipped"]]


def _check_bad_fraction(report: dict[str, Any], max_bad_fraction: float) -> None:
    bad, total = len(report["skipped"]), report["total"]
    if bad and bad > max_bad_fraction * total:
        raise UsageError(
            f"{bad} of {total} files are bad, more than max_bad_fraction={max_bad_fraction:g} allows"
            f" ({_first_skipped(report)}); mend them or raise max_bad_fraction"
        )


def _report(plan: Plan, staged: Staged) -> dict[str, Any]:
    return {
        "dataset": plan.name,
        "config": plan.config_name,
        "source": plan.source,
        "prepared_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "total": staged.total,
        "decoded": staged.decoded,
        "reused": staged.reused,
        "skipped": [{"name": name, "reason": reason} for name, reason in staged.skipped],
    }


def _summary(report: dict[str, Any]) -> str:
    resumed = f" and found {report['reused']} from an earlier run" if report["reused"] else ""
    line = (
        f"{report['dataset']}: decoded {report['decoded']} images{resumed}; skipped {len(report['skipped'])}"
    )
    return f"{line}: {_first_skipped(report)}" if report["skipped"] else line


def _first_skipped(report: dict[str, Any]) -> str:
    lines = skipped_lines(report)
    return "; ".join([*lines[:_SHOWN], *(["..."] if len(lines) > _SHOWN else [])])
