"""An evaluation as text: the models side by side, and each class's recall by group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The order in which models stand side by side.
MODELS = ("teacher", "student", "baseline")

_LABELS = {
    "cross_entropy": "CE",
    "ckd": "CKD",
    "rkd_distance": "RKD-D",
    "rkd_angle": "RKD-A",
    "ctkd": "CTKD",
    "kdpp": "KD++",
    "dkd": "DKD",
    "dist": "DIST",
    "adversary": "adversary",
    "mfd": "MFD",
    "bias_critic": "bias critic",
}
_DEBIASING = ("adversary", "mfd", "bias_critic")  # their weight is told

# Row -> key of a summary.
_ROWS = {
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
}

# Row -> what a probe reads, and its kind.
_PROBES = {
    "  embedding, linear": ("embedding", "linear"),
    "  embedding, MLP": ("embedding", "mlp"),
    "  logits, linear": ("logits", "linear"),
    "  logits, MLP": ("logits", "mlp"),
}
_PROBES_TITLE = "group readable from (advantage over the label alone in nats, and balanced accuracy)"


def number(value: float | None, digits: int = 4) -> str:
    """A number, or "n/a" where it cannot be estimated."""
    return "n/a" if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def percent(value: float | None) -> str:
    """A signed percentage, or "n/a" where it cannot be estimated."""
    return "n/a" if value is None or math.isnan(value) else f"{value:+.1f} %"


def measure(value: float | Sequence[float | None] | None) -> str:
    """A number, or the two ends of an interval."""
    ends = [number(end) for end in (value if isinstance(value, Sequence) else [value])]
    return number(None) if number(None) in ends else " to ".join(ends)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: first column to the left, the others to the right, a rule below the first.

    A row of one cell is a title, and runs over the columns.
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


def method(objectives: Mapping[str, float], balancing: Sequence[str] = ()) -> str:
    """A run's objectives in short, such as "CE + CKD + adversary(1)", and what else debiases it."""
    parts = []
    for name, weight in objectives.items():
        label = _LABELS.get(name, name)
        parts.append(f"{label}({weight:g})" if name in _DEBIASING else label)
    return " + ".join([*parts, *balancing])


def comparison(evaluation: Mapping[str, Any]) -> str:
    """Teacher, student and baseline side by side, with the inflation of disparity against the teacher.

    Below it stands what probes read of the group, where the evaluation has asked some, and what is alarming.

    Args:
      evaluation: what `evaluate_run` returns, or its JSON file holds.
    """
    names = [name for name in MODELS if name in evaluation]
    models = [evaluation[name] for name in names]
    rows = [["", *names]]
    rows.append(["method", *(method(m["objectives"], m["balancing"]) for m in models)])
    rows.append(["model", *(m["architecture"] for m in models)])
    rows.append(["parameters", *(f"{m['parameters']:,}" for m in models)])
    rows.extend([title, *(measure(m[key]) for m in models)] for title, key in _ROWS.items())
    inflation = evaluation.get("inflation", {})
    if inflation:
        for title, key in (
            ("inflation of disparity", "percent"),
            ("  corrected for chance", "corrected_percent"),
        ):
            rows.append([title, *(percent(inflation[n][key]) if n in inflation else "" for n in names)])
    if all("probe" in m for m in models):
        rows.append([_PROBES_TITLE])
        for title, (source, kind) in _PROBES.items():
            rows.append([title, *(_readable(m["probe"][source][kind]) for m in models)])
    lines = []
    if not any(m["num_gaps"] for m in models):
        lines.append("no disparity: no class has 2 images or more in each of two groups")
    lines += [f"alarm, {name}: {text}" for name in names for text in evaluation[name]["alarms"]["raised"]]
    return "\n".join([aligned(rows), *lines, *_reasons(evaluation, names)])


def _reasons(evaluation: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Why a probe says nothing, or nothing certain."""
    return [
        f"probe, {name}, {title.strip()}: {reason}"
        for name in names
        for title, (source, kind) in _PROBES.items()
        if (reason := evaluation[name].get("probe", {}).get(source, {}).get(kind, {}).get("reason"))
    ]


def _readable(probe: Mapping[str, Any]) -> str:
    """What a probe reads, such as "0.412 (0.86)"; "n/a" where it has nothing to compare."""
    advantage = number(probe["advantage"], 3)
    return advantage if advantage == number(None) else f"{advantage} ({number(probe['accuracy'], 2)})"


def members(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """The students of a population below one another, after their teacher.

    Args:
      evaluations: by member, what `evaluate_run` returns.
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
        rows.append(["teacher", *(measure(first["teacher"][key]) for key in titles)])
    for name, evaluation in evaluations.items():
        rows.append([name, *(measure(evaluation["student"][key]) for key in titles)])
    raised = [
        f"{name}: {text}" for name, one in evaluations.items() for text in one["student"]["alarms"]["raised"]
    ]
    return "\n".join([aligned(rows), *(f"alarm, {line}" for line in raised)])


def recall_by_group(evaluation: Mapping[str, Any]) -> str:
    """Each class's recall by group, and the disparity, for each model."""
    names = [name for name in MODELS if name in evaluation]
    groups, classes = evaluation["group_names"], evaluation["class_names"]
    counts = evaluation[names[0]]["counts_by_group"]
    gap = "gap" if len(groups) == 2 else "range"
    rows = [["class", *(f"n {g}" for g in groups), *(f"{n}: {g}" for n in names for g in (*groups, gap))]]
    for c, title in enumerate(classes):
        row = [title, *(str(counts[g][c]) for g in range(len(groups)))]
        for name in names:
            row += [number(evaluation[name]["recall_by_group"][g][c], 3) for g in range(len(groups))]
            row.append(number(evaluation[name]["disparity"][c], 3))
        rows.append(row)
    return aligned(rows)
