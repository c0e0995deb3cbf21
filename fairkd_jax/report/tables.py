"""Text tables of an evaluation: the models side by side, and the recall of each class by group."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairkd_jax.report.text_table import WIDE, Style, align_rows, measure_width
from fairkd_jax.runs.versions import describe_earlier_objectives

# Order of the columns.
MODELS = ("teacher", "student", "baseline")

# Row -> key of a summary, with dots where dicts are nested.
ROWS = {
    "top-1 accuracy": "accuracy",
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
    "demographic parity difference (SPD)": "rates.spd",
    "equal opportunity difference (EOD)": "rates.eod",
    "equalized odds difference (DEO)": "rates.deo",
    "average absolute odds difference": "rates.aaod",
    "unbiased accuracy": "unbiased_accuracy",
    "accuracy with the training skew": "accuracy_with_skew",
    "  against the training skew": "accuracy_against_skew",
    "calibration error (ECE)": "ece",
    "area under the ROC curve": "auroc",
}

# Keys whose smaller value is the better one; of all other numbers it is the larger one.
_SMALLER_IS_BETTER = {
    "mean_abs_disparity",
    "corrected_mean_abs_disparity",
    "max_abs_disparity",
    "rates.spd",
    "rates.eod",
    "rates.deo",
    "rates.aaod",
    "ece",
}
_NEITHER_IS_BETTER = {"floor", "corrected_interval", "any_bias_p"}

# Row -> source of the features and kind of the probe.
_PROBES = {
    "  embedding, linear": ("embedding", "linear"),
    "  embedding, MLP": ("embedding", "mlp"),
    "  logits, linear": ("logits", "linear"),
    "  logits, MLP": ("logits", "mlp"),
}
_MISSING = "n/a"
MOST_ROWS = 40  # classes of a printed table
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

    Files of earlier versions have these under `alarms` and `raised`.

    Args:
      summary: Summary of one model in an evaluation, for example `evaluation["student"]`.

    Returns:
      A sentence for each warning.
    """
    if "diagnostics" in summary:
        return list(summary["diagnostics"]["warnings"])
    return list(summary["alarms"]["raised"])


def format_comparison(evaluation: Mapping[str, Any], style: Style = WIDE) -> str:
    """Formats teacher, student and baseline side by side, with the inflation against the teacher.

    The better one of student and baseline is bold. The leakage that probes measured follows, where the
    evaluation has probes. Warnings and reasons for missing numbers are below the table.

    Args:
      evaluation: Result of `evaluate_run`, or the content of its JSON file.
      style: Form of the table.

    Returns:
      The table and the lines below the table.
    """
    names = [name for name in MODELS if name in evaluation]
    models = [evaluation[name] for name in names]
    rows, bold = [["", *names]], set[tuple[int, int]]()
    rows.append(["method", *(format_method(m) for m in models)])
    rows.append(["model", *(m["architecture"] for m in models)])
    rows.append(["parameters", *(f"{m['parameters']:,}" for m in models)])
    for title, key in ROWS.items():
        values = [find_measure(model, key) for model in models]
        if any(key.split(".")[0] in model for model in models):  # earlier versions measured less
            if (better := _find_better(key, [evaluation.get(name, {}) for name in MODELS[1:]])) is not None:
                bold.add((len(rows), 1 + names.index(MODELS[1:][better])))
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
    return "\n".join([align_rows(rows, style, bold), *lines, *_list_probe_reasons(evaluation, names)])


def _find_better(key: str, summaries: Sequence[Mapping[str, Any]]) -> int | None:
    """Finds which of two models has the better number; None where neither has."""
    values: list[Any] = [find_measure(summary, key) for summary in summaries]
    shown = [format_measure(value) for value in values]
    if key in _NEITHER_IS_BETTER or _MISSING in shown or shown[0] == shown[1]:
        return None
    return int((values[0] < values[1]) != (key in _SMALLER_IS_BETTER))


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


def format_recall_by_group(evaluation: Mapping[str, Any], scores: Path, style: Style = WIDE) -> str:
    """Formats the recall of each class by group, and its disparity, for each model.

    Args:
      evaluation: Result of `evaluate_run`, or the content of its JSON file.
      scores: Path of the JSON file, which has the classes beyond the first `MOST_ROWS`.
      style: Form of the table; where a row for each class is too wide, each group has a row of its own.

    Returns:
      The table, and below it how many images count for no group.
    """
    names = [name for name in MODELS if name in evaluation]
    groups, classes = evaluation["group_names"], evaluation["class_names"]
    counts = evaluation[names[0]]["counts_by_group"]
    gap = "gap" if len(groups) == 2 else "range"
    rows = [["class", *(f"n {g}" for g in groups), *(f"{n}: {g}" for n in names for g in (*groups, gap))]]
    narrow = [["class", "group", "n", *names]]
    for c, title in enumerate(classes[:MOST_ROWS]):
        row = [title, *(str(counts[g][c]) for g in range(len(groups)))]
        recalls = {
            name: [format_number(evaluation[name]["recall_by_group"][g][c], 3) for g in range(len(groups))]
            for name in names
        }
        gaps = {name: format_number(evaluation[name]["disparity"][c], 3) for name in names}
        rows.append([*row, *(cell for name in names for cell in (*recalls[name], gaps[name]))])
        narrow += [
            ["" if g else title, group, str(counts[g][c]), *(recalls[name][g] for name in names)]
            for g, group in enumerate(groups)
        ]
        narrow.append(["", gap, "", *gaps.values()])
    fits = style.width is None or measure_width(rows) <= style.width
    table = align_rows(rows if fits else narrow, style)
    more = [f"... and {len(classes) - MOST_ROWS:,} more classes, in {scores}"][: len(classes) > MOST_ROWS]
    return "\n".join([table, *more, *_describe_unknown_groups(evaluation, names[0])])


def _describe_unknown_groups(evaluation: Mapping[str, Any], model: str) -> list[str]:
    """Returns a line with the number of images whose group is unknown; no line where all are known."""
    total = evaluation["num_examples"][split := evaluation["split"]]
    unknown = total - sum(map(sum, evaluation[model]["counts_by_group"]))
    if not unknown:
        return []
    return [f"{unknown} of {total} images in {split} have no known group and count for no disparity"]
