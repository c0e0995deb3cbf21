"""Writes all runs of a folder into one table, and chooses a method by validation."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.choice import VALIDATION_ACCURACY, VALIDATION_CORRECTED, choose_method
from fairkd_jax.evaluation.collect import INTERVAL, CollectedRuns, to_number
from fairkd_jax.files import write_bytes, write_text
from fairkd_jax.report.tables import format_measure
from fairkd_jax.report.text_table import WIDE, Style, align_rows
from fairkd_jax.sweep.grid import format_count

CHOICE = "choice"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # beginnings of a spreadsheet's formulas
# Column of the printed table -> column of the file.
_SHOWN = {
    "accuracy": "accuracy",
    "MAD": "mean_abs_disparity",
    "corrected": "corrected_mean_abs_disparity",
    "val accuracy": VALIDATION_ACCURACY,
    "val corrected": VALIDATION_CORRECTED,
}


def write_summary(folder: Path, max_disparity: float | None, margin: float, style: Style = WIDE) -> str:
    """Writes `summary.parquet` and `summary.csv` into a folder of runs.

    Args:
      folder: Folder of the runs.
      max_disparity: Upper bound on the corrected disparity, as in `choose_method`; or None.
      margin: Accuracy that may be lost, as in `choose_method`.
      style: Form of the table.

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
    parts = [_format_table(runs, style), choice.reason]
    parts += [f"Left out, {why}: {format_count(n, 'run')}." for why, n in runs.left_out.items() if n]
    return "\n\n".join(parts)


def _format_table(runs: CollectedRuns, style: Style) -> str:
    """Formats the runs as text, with a star at each chosen run; a key of some methods alone is left out."""
    keys = [key for key in runs.keys if len({row[key] for row in runs.rows} - {None}) > 1]
    rows = [["run", *keys, *_SHOWN, "95 % interval"]]
    for row in runs.rows:
        star = " *" if row[CHOICE] else ""
        cells = [_format_cell(row.get(key)) for key in keys]
        cells += [format_measure(_drop_nan(row[key])) for key in _SHOWN.values()]
        ends = [_drop_nan(row[key]) for key in INTERVAL]
        rows.append([f"{row['run']}{star}", *cells, format_measure(ends)])
    return align_rows(rows, style)


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
    writer.writerow(map(_guard_cell, columns))
    writer.writerows(map(_guard_cell, row) for row in zip(*columns.values(), strict=True))
    return file.getvalue()


def _guard_cell(value: Any) -> Any:
    """Puts an apostrophe before a text that a spreadsheet would run as a formula; numbers stay."""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
