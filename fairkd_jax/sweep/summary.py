"""Writes all runs of a folder into one table, and chooses a method by validation."""

import csv
import io
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.collect import INTERVAL, SEED, VALIDATION, CollectedRuns, Row, to_number
from fairkd_jax.files import write_bytes, write_text
from fairkd_jax.report.tables import align_rows, format_measure
from fairkd_jax.sweep.grid import format_count

CHOICE = "choice"
_ACCURACY, _CORRECTED = f"{VALIDATION}accuracy", f"{VALIDATION}corrected_mean_abs_disparity"
# Column of the printed table -> column of the file.
_SHOWN = {
    "accuracy": "accuracy",
    "MAD": "mean_abs_disparity",
    "corrected": "corrected_mean_abs_disparity",
    "val accuracy": _ACCURACY,
    "val corrected": _CORRECTED,
}


class Choice(NamedTuple):
    """Method that validation chooses.

    Attributes:
      rows: Indices of the chosen runs in the table; empty where no method can be chosen.
      reason: Sentences that explain the choice.
    """

    rows: tuple[int, ...]
    reason: str


def write_summary(folder: Path, max_disparity: float | None, margin: float) -> str:
    """Writes `summary.parquet` and `summary.csv` into a folder of runs.

    Args:
      folder: Folder of the runs.
      max_disparity: Upper bound on the corrected disparity, as in `choose_method`; or None.
      margin: Accuracy that may be lost, as in `choose_method`.

    Returns:
      Table and choice as text.

    Raises:
      UsageError: No run is evaluated, a file is damaged, or a number is negative or NaN.
    """
    if not margin >= 0 or (max_disparity is not None and not max_disparity >= 0):
        raise UsageError("--margin and --max_disparity must be 0 or more")
    runs = CollectedRuns(folder)
    choice = choose_method(runs.rows, runs.methods, runs.images, max_disparity=max_disparity, margin=margin)
    for index, row in enumerate(runs.rows):
        row[CHOICE] = index in choice.rows
    names = list(dict.fromkeys(name for row in runs.rows for name in row if name != CHOICE))
    columns = {name: _make_column([row.get(name) for row in runs.rows]) for name in [*names, CHOICE]}
    write_bytes(folder / "summary.parquet", _encode_parquet(columns))
    write_text(folder / "summary.csv", _encode_csv(columns))
    parts = [_format_table(runs), choice.reason]
    parts += [f"Left out, {why}: {format_count(n, 'run')}." for why, n in runs.left_out.items() if n]
    return "\n\n".join(parts)


def choose_method(
    rows: Sequence[Row],
    methods: Sequence[Hashable],
    images: Sequence[str],
    *,
    max_disparity: float | None,
    margin: float,
) -> Choice:
    """Chooses a method by its means over seeds on validation; no measure on test has an influence.

    With `max_disparity`, the choice is the most accurate method whose corrected mean absolute disparity is at
    most this bound. Without, the choice has the least corrected disparity among the methods whose accuracy is
    within `margin` of the highest accuracy. A method needs both measures for all its runs.

    Args:
      rows: Measures of the runs.
      methods: Method of each run: its config without the seed.
      images: Digest of the validation images of each run.
      max_disparity: Upper bound on the corrected disparity, or None.
      margin: Accuracy that may be lost.

    Returns:
      Indices of the chosen runs, and the reason.
    """
    if len(set(images)) > 1:
        return Choice((), "Nothing is chosen: the runs were validated on different images.")
    indices: dict[Hashable, list[int]] = {}
    for index, method in enumerate(methods):
        indices.setdefault(method, []).append(index)
    means = {method: _compute_means(rows, own) for method, own in indices.items()}
    known = {method: pair for method, pair in means.items() if pair is not None}
    if not known:
        return Choice((), "Nothing is chosen: no method has both accuracy and disparity on validation.")
    if max_disparity is not None:
        kept = [method for method, (_, disparity) in known.items() if disparity <= max_disparity]
        if not kept:
            return Choice((), f"Nothing is chosen: no method is within {max_disparity:g} on validation.")
        best = max(kept, key=lambda method: known[method][0])
        rule = f"highest accuracy on validation within a corrected disparity of {max_disparity:g}"
    else:
        highest = max(accuracy for accuracy, _ in known.values())
        kept = [method for method, (accuracy, _) in known.items() if accuracy >= highest - margin]
        best = min(kept, key=lambda method: (known[method][1], -known[method][0]))
        rule = f"least corrected disparity on validation within {margin:g} of the highest accuracy"
    num_seeds = {len(indices[method]) for method in known}
    reason = _explain_choice([rows[i] for i in indices[best]], known[best], rule, num_seeds)
    return Choice(tuple(indices[best]), reason)


def _compute_means(rows: Sequence[Row], indices: Sequence[int]) -> tuple[float, float] | None:
    """Computes the mean accuracy and corrected disparity of a method; None where a run lacks a measure."""
    accuracy, disparity = (
        float(np.mean([to_number(rows[i][key]) for i in indices])) for key in (_ACCURACY, _CORRECTED)
    )
    return None if math.isnan(accuracy) or math.isnan(disparity) else (accuracy, disparity)


def _explain_choice(rows: Sequence[Row], means: tuple[float, float], rule: str, num_seeds: set[int]) -> str:
    """Explains a choice.

    Args:
      rows: Measures of the chosen runs.
      means: Mean accuracy and mean corrected disparity of the runs.
      rule: Rule that the method was chosen by.
      num_seeds: Numbers of seeds of all methods.
    """
    runs = ", ".join(str(row["run"]) for row in rows)
    seeds = ", ".join(str(row[SEED]) for row in rows)
    accuracy, disparity = means
    text = (
        f"Chosen: {runs} (seeds {seeds}), {rule}: accuracy {accuracy:.4f}, disparity {disparity:.4f} there."
        " Report the measures on test with seeds that had no part in the choice."
    )
    if len(num_seeds) > 1:
        text += (
            f" Note that the methods have {min(num_seeds)} to {max(num_seeds)} seeds:"
            " a single seed may be lucky."
        )
    return text


def _format_table(runs: CollectedRuns) -> str:
    """Formats the runs as text, with a star at each chosen run; a key of some methods alone is left out."""
    keys = [key for key in runs.keys if len({row[key] for row in runs.rows} - {None}) > 1]
    rows = [["run", *keys, *_SHOWN, "95 % interval"]]
    for row in runs.rows:
        star = " *" if row[CHOICE] else ""
        cells = [_format_cell(row.get(key)) for key in keys]
        cells += [format_measure(_drop_nan(row[key])) for key in _SHOWN.values()]
        ends = [_drop_nan(row[key]) for key in INTERVAL]
        rows.append([f"{row['run']}{star}", *cells, format_measure(ends)])
    return align_rows(rows)


def _drop_nan(value: Any) -> float | None:
    return None if math.isnan(to_number(value)) else float(value)


def _format_cell(value: Any) -> str:
    return "" if value is None else str(value)


def _make_column(values: Sequence[Any]) -> list[Any]:
    """Makes a column of one type: booleans, numbers, or else texts; None for a missing value or NaN."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int}:
        return list(values)
    if kinds <= {int, float}:
        return [_drop_nan(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _encode_parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    file = io.BytesIO()
    typed = {name: pa.array(v, None if set(v) - {None} else pa.float64()) for name, v in columns.items()}
    parquet.write_table(pa.table(typed), file)
    return file.getvalue()


def _encode_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()
