"""Text table of a population: a row for each student, and means over their seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairkd_jax.report.tables import format_measure, format_number, read_warnings
from fairkd_jax.report.text_table import WIDE, Style, align_rows


def format_population(evaluations: Mapping[str, Mapping[str, Any]], style: Style = WIDE) -> str:
    """Formats the students of a population, one row each, after their teacher.

    Students whose names differ in the seed alone have two more rows: the mean and the standard deviation of
    each measure over their seeds. An interval has neither.

    Args:
      evaluations: Result of `evaluate_run` for each student, by the student's name, for example
        "adversary.weight=0.5,seed=1".
      style: Form of the table.

    Returns:
      The table, and the warnings below the table.
    """
    titles = {
        "accuracy": "top-1 accuracy",
        "worst_group_recall": "worst recall",
        "mean_abs_disparity": "disparity",
        "floor": "by chance",
        "corrected_mean_abs_disparity": "corrected",
        "corrected_interval": "its 95 % interval",
    }
    rows = [["", *titles.values()]]
    first = next(iter(evaluations.values()))
    if "teacher" in first:
        rows.append(["teacher", *(format_measure(first["teacher"][key]) for key in titles)])
    for name, evaluation in evaluations.items():
        rows.append([name, *(format_measure(evaluation["student"][key]) for key in titles)])
    rows += _summarize_seeds(
        {name: evaluation["student"] for name, evaluation in evaluations.items()}, titles
    )
    lines = [
        f"warning, {name}: {text}"
        for name, evaluation in evaluations.items()
        for text in read_warnings(evaluation["student"])
    ]
    return "\n".join([align_rows(rows, style), *lines])


def _summarize_seeds(students: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> list[list[str]]:
    """Makes the rows of means and standard deviations over the seeds of each method.

    Args:
      students: Summaries by the name of the student.
      keys: Keys of the columns.

    Returns:
      Two rows for each method with two seeds or more. "n/a" where a seed has no number, "" for an interval.
    """
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for name, summary in students.items():
        shared = [part for part in name.split(",") if not part.startswith("seed=")]
        if len(shared) < name.count(",") + 1:
            methods.setdefault(",".join(shared), []).append(summary)
    rows = []
    for name, runs in methods.items():
        if len(runs) < 2:
            continue
        means, deviations = [], []
        for key in keys:
            values = [run[key] for run in runs]
            if any(isinstance(value, Sequence) for value in values):
                means.append("")
                deviations.append("")
                continue
            numbers = [math.nan if value is None else float(value) for value in values]
            missing = any(map(math.isnan, numbers))
            means.append(format_number(math.nan if missing else statistics.fmean(numbers)))
            deviations.append(format_number(math.nan if missing else statistics.stdev(numbers)))
        prefix = f"{name}, " if name else ""
        rows.append([f"{prefix}mean over {len(runs)} seeds", *means])
        rows.append([f"{prefix}standard deviation", *deviations])
    return rows
