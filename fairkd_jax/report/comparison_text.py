"""Text of a comparison of runs: methods over their seeds, differences, and the sentences about them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairkd_jax.fairness.comparison import HIGHER, LOWER, NOTHING, ONE_SEED, TOO_FEW
from fairkd_jax.report.tables import format_number, format_percent
from fairkd_jax.report.text_table import WIDE, Style, align_rows
from fairkd_jax.runs.paths import BEST

# Measure -> its column's title, its row's title, and digits.
_MEASURES = {
    "accuracy": ("accuracy", "top-1 accuracy", 4),
    "mean_abs_disparity": ("disparity", "mean absolute disparity", 4),
    "corrected_mean_abs_disparity": ("corrected", "  corrected for chance", 4),
    "d2": ("D2", "mean squared disparity (D2)", 5),
    "worst_group_recall": ("worst recall", "worst class and group recall", 4),
}
_MAD = "mean_abs_disparity"
_CONSTANT = (
    "Accuracy fell along with disparity in these runs: mind that a model that gives every image the same"
    " answer has a disparity of 0."
)
_TEACHERS = {
    "one": "All these runs learn from one teacher: the intervals do not hold what another one would change.",
    "other": "Runs of the same seed learn from different teachers here: the seed pairs them less well.",
}


def format_comparison(result: Mapping[str, Any], style: Style = WIDE) -> str:
    """Formats the result of `compare_runs` as tables and sentences.

    Args:
      result: Result of `compare_runs`; missing numbers are NaN, not None.
      style: Form of the tables.

    Returns:
      Tables and sentences, with an empty line between two parts.
    """
    groups = ", ".join(result["group_names"])
    parts = [
        f"{result['dataset']}, {result['split']}: {result['num_examples']:,} images in"
        f" {len(result['class_names'])} classes, groups {groups}"
    ]
    if result["checkpoint"] != BEST:
        parts.append(f"Scored at the checkpoint {result['checkpoint']} of each run, not at its best.")
    methods, comparisons = result["arms"], result["comparisons"]
    if not comparisons:
        parts.append(_format_seeds(methods[0], style))
        parts.append("There is nothing to compare with: these runs differ in their seed alone.")
        return "\n\n".join(parts)
    parts.append(_format_methods(methods, style))
    parts.extend(_format_difference(entry, len(comparisons), style) for entry in comparisons)
    notes = [
        "Over seeds: what other seeds of these methods would show on these images. Over images: what these"
        " models would show on other images."
    ]
    if len(methods) > 2:
        notes.append("Accuracy is never corrected for several comparisons: a correction would hide a fall.")
    if len(methods) > 2 and result["split"] == "test":
        notes.append(
            "Lambda and other settings are to be chosen on validation (--split val): the least of several"
            " test disparities is too low by chance."
        )
    return "\n\n".join([*parts, "\n".join(notes)])


def _format_seeds(method: Mapping[str, Any], style: Style) -> str:
    """Formats one method: a row for each seed, then the mean and the standard deviation."""
    rows = [["seed", *(title for title, _, _ in _MEASURES.values()), "folder"]]
    lines = [(str(run["seed"]), run, run["folder"]) for run in method["runs"]]
    lines += [("mean", method["mean"], ""), ("standard deviation", method["deviation"], "")]
    for title, values, folder in lines:
        rows.append([title, *(format_number(values[key], m[2]) for key, m in _MEASURES.items()), folder])
    return align_rows(rows, style)


def _format_methods(methods: Sequence[Mapping[str, Any]], style: Style) -> str:
    """Formats a row for each method, and the folders of its runs."""
    rows = [["mean (standard deviation)", "seeds", *(title for title, _, _ in _MEASURES.values())]]
    folders = []
    for place, method in enumerate(methods):
        cells = [
            format_number(method["mean"][key], digits)
            + (f" ({format_number(method['deviation'][key], digits)})" if len(method["runs"]) > 1 else "")
            for key, (_, _, digits) in _MEASURES.items()
        ]
        rows.append([method["name"], str(len(method["runs"])), *cells])
        runs = ", ".join(f"{run['folder']} (seed {run['seed']})" for run in method["runs"])
        folders.append(f"{method['name']}{'' if place else ', the reference'}: {runs}")
    return "\n".join([align_rows(rows, style), "", *folders])


def _format_difference(entry: Mapping[str, Any], tests: int, style: Style) -> str:
    """Formats a method minus the reference: a table and the sentences about the difference."""
    seeds, over_seeds, over_images = entry["seeds"], entry["over_seeds"], entry["over_images"]
    rows = [["", "difference", "deviation", "95 % over seeds", "p", "95 % over images", "p"]]
    for key, found in over_seeds.items():
        _, title, digits = _MEASURES[key]
        images = over_images.get(key, {})
        rows.append(
            [
                title,
                _format_signed(found["mean"], digits),
                format_number(found["deviation"], digits),
                _format_interval(found, digits),
                _format_p(found["p"]),
                _format_interval(images, digits) if images else "",
                _format_p(images["p"]) if "p" in images else "",
            ]
        )
    lines = [
        f"{entry['arm']} minus {entry['reference']}, seed{'s' * (len(seeds) > 1)} {_join_seeds(seeds)}",
        align_rows(rows, style),
        "",
        *make_verdict_sentences(entry, tests),
    ]
    for side, other in (("arm", "reference"), ("reference", "arm")):
        if left := entry["left_out"][side]:
            lines.append(f"Left out: seed {_join_seeds(left)} of {entry[side]}, which {entry[other]} lacks.")
    if len(seeds) > 1 and entry["teachers"] in _TEACHERS:
        lines.append(_TEACHERS[entry["teachers"]])
    return "\n".join(lines)


def make_verdict_sentences(entry: Mapping[str, Any], tests: int) -> list[str]:
    """Makes the sentences about disparity and accuracy that the evidence allows.

    Args:
      entry: One of the `comparisons` of `compare_runs`.
      tests: Number of comparisons.
    """
    gap, accuracy = entry["over_seeds"][_MAD], entry["over_seeds"]["accuracy"]
    seeds = len(entry["seeds"])
    if gap["verdict"] == ONE_SEED:
        images = entry["over_images"]
        lines = [
            "One seed cannot tell methods apart: another one may turn the sign. Of these two models, mean"
            f" absolute disparity differs by {_format_signed(gap['mean'])} (95 % interval over images"
            f" {_format_interval(images[_MAD])}, p = {_format_p(images[_MAD]['p'])}), accuracy by"
            f" {_format_signed(accuracy['mean'])} ({_format_interval(images['accuracy'])})."
        ]
    else:
        too = " too" * (gap["verdict"] == accuracy["verdict"])
        lines = [
            _make_sentence("Mean absolute disparity", gap, seeds, tests),
            _make_sentence("Accuracy", accuracy, seeds, 1, too),
        ]
    if gap["mean"] < 0.0 and accuracy["mean"] < 0.0:
        lines.append(_CONSTANT)
    return lines


def make_inflation_sentence(found: Mapping[str, Any], student: str) -> str:
    """Makes the sentence about the inflation of a student's disparity, or about its difference.

    Args:
      found: Result of `compare_with_teacher`.
      student: Title of the student.
    """
    head = f"Inflation of disparity against the teacher, {student}: "
    if not found["reason"]:
        corrected, plain = (_add_ends(found, key, format_percent) for key in ("corrected_percent", "percent"))
        return f"{head}{corrected} when corrected for chance, {plain} otherwise."
    head += f"n/a, because {found['reason']}."
    if math.isnan(found["difference"]):
        return head
    keys = ("corrected_difference", "difference")
    corrected, plain = (_add_ends(found, key, _format_signed) for key in keys)
    return f"{head} Mean absolute disparity differs by {corrected} when corrected, by {plain} otherwise."


def _add_ends(found: Mapping[str, Any], key: str, format_value: Callable[[float], str]) -> str:
    low, high = map(format_value, found[f"{key}_interval"])
    ends = "n/a" if low == "n/a" else f"{low} to {high}"
    return f"{format_value(found[key])} (95 % interval over images {ends})"


def _make_sentence(title: str, found: Mapping[str, Any], seeds: int, tests: int, too: str = "") -> str:
    if math.isnan(found["mean"]):
        return f"{title} cannot be compared: no class has two groups with enough images."
    if math.isnan(found["p"]):
        return _make_sentence_without_deviation(title, found, seeds)
    p = f"p = {_format_p(found['p'])}"
    if tests > 1:
        p += f", {_format_p(found['holm_p'])} by Holm's correction for {tests} comparisons"
    if found["verdict"] in (LOWER, HIGHER):
        least, most = sorted((abs(found["low"]), abs(found["high"])))
        return (
            f"{title} is {found['verdict']}{too}, by {abs(found['mean']):.4f} (95 % interval over {seeds}"
            f" seeds {least:.4f} to {most:.4f}; {p})."
        )
    # No share can differ by more than 1.
    size = f"one of {found['detectable']:.4f}" if found["detectable"] <= 1.0 else "none, however large,"
    words = f"{seeds} seeds are too few to tell" if found["verdict"] == TOO_FEW else NOTHING
    return (
        f"{title}: {words} ({_format_signed(found['mean'])}; 95 % interval over {seeds} seeds"
        f" {_format_interval(found)}; {p}); {size} would have been found with 80 % power."
    )


def _make_sentence_without_deviation(title: str, found: Mapping[str, Any], seeds: int) -> str:
    """Makes the sentence about a difference that all seeds have alike."""
    differs = f"differs by {_format_signed(found['mean'])} in each seed alike"
    if not found["mean"]:
        differs = "is the same in each seed"
    if found["verdict"] == TOO_FEW:
        return f"{title} {differs}: {seeds} seeds are too few to tell how much it varies between seeds."
    return f"{title} {differs}: how much it varies between seeds is not known, and {NOTHING}."


def _format_signed(value: float, digits: int = 4) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.{digits}f}"


def _format_interval(found: Mapping[str, float], digits: int = 4) -> str:
    if math.isnan(found["low"]):
        return "n/a"
    return f"{_format_signed(found['low'], digits)} to {_format_signed(found['high'], digits)}"


def _format_p(value: float) -> str:
    return "n/a" if math.isnan(value) else "<0.0001" if value < 5e-5 else f"{value:.4f}"


def _join_seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
