"""Text tables of an evaluation: the models side by side, and the recall of each class by group."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairkd_jax.runs.versions import describe_earlier_objectives

# Order of the columns.
MODELS = ("teacher", "student", "baseline")

# Row -> key of a summary, with dots where dicts are nested.
ROWS = {
    "top-1 accuracy": "accuracy",
    "recall (weighted)": "recall",
    "precision (weighted)": "precision",
    "F1 (weighted)": "f1",
    "recall (macro)": "macro_recall",
    "worst class and group recall": "worst_group_recall",
    "mean absolute disparity": "mean_abs_disparity",
    "  by chance alone, if unbiased": "floor",
    "  corrected for chance": "corrected_mean_abs_disparity",
    "    its 95 % interval": "corrected_interval",
    "  p value of no bias at all": "any_bias_p",
    "largest disparity": "max_abs_disparity",
    "statistical parity difference (SPD)": "rates.spd",
    "equal opportunity difference (EOD)": "rates.eod",
    "equalized odds difference (DEO)": "rates.deo",
    "average absolute odds difference": "rates.aaod",
    "unbiased accuracy": "unbiased_accuracy",
    "accuracy with the training skew": "accuracy_with_skew",
    "  against the training skew": "accuracy_against_skew",
    "calibration error (ECE)": "ece",
    "area under the ROC curve": "auroc",
}

# Row -> source of the features and kind of the probe.
_PROBES = {
    "  embedding, linear": ("embedding", "linear"),
    "  embedding, MLP": ("embedding", "mlp"),
    "  logits, linear": ("logits", "linear"),
    "  logits, MLP": ("logits", "mlp"),
}
_MISSING = "n/a"
_PROBES_TITLE = "group readable from (advantage over the label alone in nats, and balanced accuracy)"


def format_number(value: float | None, digits: int = 4) -> str:
    """Formats a number; "n/a" where the value is None or NaN."""
    return _MISSING if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def format_percent(value: float | None) -> str:
    """Formats a percentage with its sign; "n/a" where the value is None or NaN."""
    return _MISSING if value is None or math.isnan(value) else f"{value:+.1f} %"


def format_measure(value: float | Sequence[float | None] | None) -> str:
    """Formats a number, or the two ends of an interval; "n/a" where one of them is None or NaN."""
    ends = [format_number(end) for end in (value if isinstance(value, Sequence) else [value])]
    return _MISSING if _MISSING in ends else " to ".join(ends)


def align_rows(rows: Sequence[Sequence[str]]) -> str:
    """Aligns rows of cells as a text table, with a rule below the first row.

    The first column is aligned to the left, all other columns to the right.

    Args:
      rows: Cells of each row; a row of a single cell is a title across all columns.

    Returns:
      The table, without a line break at the end.
    """
    widths = [max(len(row[i]) for row in rows if len(row) > 1) for i in range(len(rows[0]))]
    lines = [
        row[0]
        if len(row) == 1
        else "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def find_measure(summary: Mapping[str, Any], key: str) -> Any:
    """Returns a measure of a summary by its key with dots; None where an earlier version has not measured it.

    Args:
      summary: Summary of one model in an evaluation.
      key: A value of `ROWS`.
    """
    value: Any = summary
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def format_method(summary: Mapping[str, Any]) -> str:
    """Formats the method of a run, for example "CE + CKD + adversary(1)".

    Args:
      summary: Summary of one model in an evaluation, with `objectives`, `balancing` and `methods`. Files of
        earlier versions have no `methods`.

    Returns:
      All parts, joined by " + "; an objective that debiases is shown with its weight.
    """
    methods = summary.get("methods") or describe_earlier_objectives(summary["objectives"])
    parts = []
    for name, weight in summary["objectives"].items():
        label = methods[name]["label"]
        parts.append(f"{label}({weight:g})" if methods[name]["debiases"] else label)
    return " + ".join([*parts, *summary["balancing"]])


def read_warnings(summary: Mapping[str, Any]) -> list[str]:
    """Returns the warnings about collapse and over-correction in the summary of one model.

    Files of earlier versions have these under the keys `alarms` and `raised`.

    Args:
      summary: Summary of one model in an evaluation, for example `evaluation["student"]`.

    Returns:
      A sentence for each warning.
    """
    if "diagnostics" in summary:
        return list(summary["diagnostics"]["warnings"])
    return list(summary["alarms"]["raised"])


def format_comparison(evaluation: Mapping[str, Any]) -> str:
    """Formats teacher, student and baseline side by side, with the inflation against the teacher.

    The leakage that probes measured follows, where the evaluation has probes. Warnings and reasons for
    missing numbers are below the table.

    Args:
      evaluation: Result of `evaluate_run`, or the content of its JSON file.

    Returns:
      The table and the lines below the table.
    """
    names = [name for name in MODELS if name in evaluation]
    models = [evaluation[name] for name in names]
    rows = [["", *names]]
    rows.append(["method", *(format_method(m) for m in models)])
    rows.append(["model", *(m["architecture"] for m in models)])
    rows.append(["parameters", *(f"{m['parameters']:,}" for m in models)])
    for title, key in ROWS.items():
        values = [find_measure(model, key) for model in models]
        if any(key.split(".")[0] in model for model in models):  # earlier versions measured less
            rows.append([title, *map(format_measure, values)])
    inflation = evaluation.get("inflation", {})
    if inflation:
        for title, key in (
            ("inflation of disparity", "percent"),
            ("  corrected for chance", "corrected_percent"),
        ):
            rows.append(
                [title, *(format_percent(inflation[n][key]) if n in inflation else "" for n in names)]
            )
    if all("probe" in m for m in models):
        rows.append([_PROBES_TITLE])
        for title, (source, kind) in _PROBES.items():
            rows.append([title, *(format_leakage(m["probe"][source][kind]) for m in models)])
    lines = []
    if not any(m["num_gaps"] for m in models):
        lines.append("no disparity: no class has 2 images or more in each of two groups")
    lines += [f"warning, {name}: {text}" for name in names for text in read_warnings(evaluation[name])]
    return "\n".join([align_rows(rows), *lines, *_list_probe_reasons(evaluation, names)])


def _list_probe_reasons(evaluation: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Lists the reasons why a probe has no result, or no interval."""
    return [
        f"probe, {name}, {title.strip()}: {reason}"
        for name in names
        for title, (source, kind) in _PROBES.items()
        if (reason := evaluation[name].get("probe", {}).get(source, {}).get(kind, {}).get("reason"))
    ]


def format_leakage(probe: Mapping[str, Any]) -> str:
    """Formats the leakage that a probe measured, for example "0.412 (0.86)"; "n/a" without a result."""
    advantage = format_number(probe["advantage"], 3)
    return advantage if advantage == _MISSING else f"{advantage} ({format_number(probe['accuracy'], 2)})"


def format_population(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the students of a population, one row each, after their teacher.

    Students whose names differ in the seed alone have two more rows: the mean and the standard deviation of
    each measure over their seeds. An interval has neither.

    Args:
      evaluations: Result of `evaluate_run` for each student, by the student's name, for example
        "adversary.weight=0.5,seed=1".

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
    return "\n".join([align_rows(rows), *lines])


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


def format_recall_by_group(evaluation: Mapping[str, Any]) -> str:
    """Formats the recall of each class by group, and its disparity, for each model.

    Args:
      evaluation: Result of `evaluate_run`, or the content of its JSON file.

    Returns:
      The table, and below it how many images count for no group.
    """
    names = [name for name in MODELS if name in evaluation]
    groups, classes = evaluation["group_names"], evaluation["class_names"]
    counts = evaluation[names[0]]["counts_by_group"]
    gap = "gap" if len(groups) == 2 else "range"
    rows = [["class", *(f"n {g}" for g in groups), *(f"{n}: {g}" for n in names for g in (*groups, gap))]]
    for c, title in enumerate(classes):
        row = [title, *(str(counts[g][c]) for g in range(len(groups)))]
        for name in names:
            row += [format_number(evaluation[name]["recall_by_group"][g][c], 3) for g in range(len(groups))]
            row.append(format_number(evaluation[name]["disparity"][c], 3))
        rows.append(row)
    return "\n".join([align_rows(rows), *_describe_unknown_groups(evaluation, names[0])])


def _describe_unknown_groups(evaluation: Mapping[str, Any], model: str) -> list[str]:
    """Returns a line with the number of images whose group is unknown; no line where all are known."""
    split = evaluation["split"]
    total = evaluation["num_examples"][split]
    unknown = total - sum(map(sum, evaluation[model]["counts_by_group"]))
    if not unknown:
        return []
    return [f"{unknown} of {total} images in {split} have no known group and count for no disparity"]
