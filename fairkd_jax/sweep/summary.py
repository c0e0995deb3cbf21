"""All runs of a folder in one table, and the method that validation chooses."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_bytes, write_text
from fairkd_jax.report.tables import aligned, measure
from fairkd_jax.sweep.gather import INTERVAL, SEED, VALIDATION, Gathered, Row, number
from fairkd_jax.sweep.grid import several

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
    """What validation chooses.

    Attributes:
      rows: the chosen runs, as places in the table; none where nothing could be chosen.
      words: why.
    """

    rows: tuple[int, ...]
    words: str


def summarize(folder: Path, max_disparity: float | None, margin: float) -> str:
    """Writes `summary.parquet` and `summary.csv` into a folder of runs.

    Args:
      folder: of the runs.
      max_disparity: as of `choose`.
      margin: as of `choose`.

    Returns:
      The table as text.

    Raises:
      UsageError: there is no evaluated run, a file is damaged, or a number makes no sense.
    """
    if not margin >= 0 or (max_disparity is not None and not max_disparity >= 0):
        raise UsageError("--margin and --max_disparity must be 0 or more")
    found = Gathered(folder)
    choice = choose(found.rows, found.methods, found.images, max_disparity=max_disparity, margin=margin)
    for place, row in enumerate(found.rows):
        row[CHOICE] = place in choice.rows
    names = list(dict.fromkeys(name for row in found.rows for name in row if name != CHOICE))
    columns = {name: _column([row.get(name) for row in found.rows]) for name in [*names, CHOICE]}
    write_bytes(folder / "summary.parquet", _parquet(columns))
    write_text(folder / "summary.csv", _csv(columns))
    parts = [_table(found), choice.words]
    parts += [f"Left out, {why}: {several(n, 'run')}." for why, n in found.left_out.items() if n]
    return "\n\n".join(parts)


def choose(
    rows: Sequence[Row],
    methods: Sequence[str],
    images: Sequence[str],
    *,
    max_disparity: float | None,
    margin: float,
) -> Choice:
    """Chooses a method by its means over seeds on validation; the test images are not looked at.

    With `max_disparity` it is the most accurate method whose corrected mean absolute disparity is at most
    that. Without, it is the one of least corrected disparity among those whose accuracy is within `margin` of
    the most accurate one's. A method counts where both are known of all its runs.

    Args:
      rows: the runs.
      methods: of each, what it is but for its seed.
      images: of each, which images it was validated on.
      max_disparity: a bound, or None.
      margin: accuracy that may be lost.
    """
    if len(set(images)) > 1:
        return Choice((), "Nothing is chosen: the runs were validated on different images.")
    places: dict[str, list[int]] = {}
    for place, method in enumerate(methods):
        places.setdefault(method, []).append(place)
    means = {
        method: tuple(float(np.mean([number(rows[i][key]) for i in own])) for key in (_ACCURACY, _CORRECTED))
        for method, own in places.items()
    }
    known = {method: pair for method, pair in means.items() if not any(map(math.isnan, pair))}
    if not known:
        return Choice((), "Nothing is chosen: no accuracy and disparity on validation are known.")
    if max_disparity is not None:
        kept = [method for method, (_, disparity) in known.items() if disparity <= max_disparity]
        if not kept:
            return Choice((), f"Nothing is chosen: no method keeps within {max_disparity:g} on validation.")
        best = max(kept, key=lambda method: known[method][0])
        why = f"the most accurate one on validation within a corrected disparity of {max_disparity:g}"
    else:
        highest = max(accuracy for accuracy, _ in known.values())
        kept = [method for method, (accuracy, _) in known.items() if accuracy >= highest - margin]
        best = min(kept, key=lambda method: (known[method][1], -known[method][0]))
        why = f"of least corrected disparity on validation within {margin:g} of the highest accuracy"
    accuracy, disparity = known[best]
    seeds = ", ".join(str(rows[i][SEED]) for i in places[best])
    runs = ", ".join(str(rows[i]["run"]) for i in places[best])
    words = (
        f"Chosen: {runs} (seeds {seeds}), {why}: accuracy {accuracy:.4f}, disparity {disparity:.4f} there."
        " Report it on test with seeds that had no part in the choice."
    )
    if len(numbers := {len(places[method]) for method in known}) > 1:
        words += f" Mind that the methods have {min(numbers)} to {max(numbers)} seeds: one seed may be lucky."
    return Choice(tuple(places[best]), words)


def _table(found: Gathered) -> str:
    """The runs as text; one that is chosen has a star. Keys that only some methods use are in the files."""
    keys = [key for key in found.keys if len({row[key] for row in found.rows} - {None}) > 1]
    rows = [["run", *keys, *_SHOWN, "95 % interval"]]
    for row in found.rows:
        star = " *" if row[CHOICE] else ""
        cells = [_text(row.get(key)) for key in keys]
        cells += [measure(_finite(row[key])) for key in _SHOWN.values()]
        ends = [_finite(row[key]) for key in INTERVAL]
        rows.append([f"{row['run']}{star}", *cells, measure(ends)])
    return aligned(rows)


def _finite(value: Any) -> float | None:
    return None if math.isnan(number(value)) else float(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _column(values: Sequence[Any]) -> list[Any]:
    """Values of one type: booleans, numbers, or else texts; None where there is none."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int}:
        return list(values)
    if kinds <= {int, float}:
        return [_finite(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    file = io.BytesIO()
    typed = {name: pa.array(v, None if set(v) - {None} else pa.float64()) for name, v in columns.items()}
    parquet.write_table(pa.table(typed), file)
    return file.getvalue()


def _csv(columns: Mapping[str, Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()
