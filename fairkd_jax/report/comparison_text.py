"""A comparison of runs as text: methods over their seeds, their differences, and what may be said of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.fairness.comparison import HIGHER, LOWER, NOTHING, ONE_SEED
from fairkd_jax.report.tables import aligned, number

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


def comparison(result: Mapping[str, Any]) -> str:
    """Everything that `compare_runs` found, as tables and sentences."""
    groups = ", ".join(result["group_names"])
    parts = [
        f"{result['dataset']}, {result['split']}: {result['num_examples']:,} images in"
        f" {len(result['class_names'])} classes, groups {groups}"
    ]
    arms, comparisons = result["arms"], result["comparisons"]
    if not comparisons:
        parts.append(_seeds(arms[0]))
        parts.append("There is nothing to compare with: these runs differ in their seed alone.")
        return "\n\n".join(parts)
    parts.append(_arms(arms))
    parts.extend(_difference(entry, len(comparisons)) for entry in comparisons)
    notes = [
        "Over seeds: what other seeds of these methods would show on these images. Over images: what these"
        " models would show on other images."
    ]
    if len(arms) > 2 and result["split"] == "test":
        notes.append(
            "Lambda and other settings are to be chosen on validation (--split val): the least of several"
            " test disparities is too low by chance."
        )
    return "\n\n".join([*parts, "\n".join(notes)])


def _seeds(arm: Mapping[str, Any]) -> str:
    """A table of one arm: a row for each seed, their mean and their standard deviation."""
    rows = [["seed", *(title for title, _, _ in _MEASURES.values()), "folder"]]
    lines = [(str(run["seed"]), run, run["folder"]) for run in arm["runs"]]
    lines += [("mean", arm["mean"], ""), ("standard deviation", arm["deviation"], "")]
    for title, values, folder in lines:
        rows.append([title, *(number(values[key], m[2]) for key, m in _MEASURES.items()), folder])
    return aligned(rows)


def _arms(arms: Sequence[Mapping[str, Any]]) -> str:
    """A table with a row for each arm, and the folders of their runs."""
    rows = [["mean (standard deviation)", "seeds", *(title for title, _, _ in _MEASURES.values())]]
    folders = []
    for place, arm in enumerate(arms):
        cells = [
            number(arm["mean"][key], digits)
            + (f" ({number(arm['deviation'][key], digits)})" if len(arm["runs"]) > 1 else "")
            for key, (_, _, digits) in _MEASURES.items()
        ]
        rows.append([arm["name"], str(len(arm["runs"])), *cells])
        runs = ", ".join(f"{run['folder']} (seed {run['seed']})" for run in arm["runs"])
        folders.append(f"{arm['name']}{'' if place else ', the reference'}: {runs}")
    return "\n".join([aligned(rows), "", *folders])


def _difference(entry: Mapping[str, Any], tests: int) -> str:
    """An arm minus the reference: a table and what may be said."""
    seeds, over_seeds, over_images = entry["seeds"], entry["over_seeds"], entry["over_images"]
    rows = [["", "difference", "deviation", "95 % over seeds", "p", "95 % over images", "p"]]
    for key, found in over_seeds.items():
        _, title, digits = _MEASURES[key]
        images = over_images.get(key, {})
        rows.append(
            [
                title,
                _signed(found["mean"], digits),
                number(found["deviation"], digits),
                _interval(found, digits),
                _p(found["p"]),
                _interval(images, digits) if images else "",
                _p(images["p"]) if "p" in images else "",
            ]
        )
    lines = [
        f"{entry['arm']} minus {entry['reference']}, seed{'s' * (len(seeds) > 1)} {_listed(seeds)}",
        aligned(rows),
        "",
        *_said(entry, tests),
    ]
    for side, other in (("arm", "reference"), ("reference", "arm")):
        if left := entry["left_out"][side]:
            lines.append(f"Left out: seed {_listed(left)} of {entry[side]}, which {entry[other]} lacks.")
    if len(seeds) > 1 and entry["teachers"] in _TEACHERS:
        lines.append(_TEACHERS[entry["teachers"]])
    return "\n".join(lines)


def _said(entry: Mapping[str, Any], tests: int) -> list[str]:
    """The sentences on disparity and accuracy, in the words that the evidence allows."""
    gap, accuracy = entry["over_seeds"][_MAD], entry["over_seeds"]["accuracy"]
    seeds = len(entry["seeds"])
    if gap["verdict"] == ONE_SEED:
        images = entry["over_images"]
        lines = [
            "One seed cannot tell methods apart: another one may turn the sign. Of these two models, mean"
            f" absolute disparity differs by {_signed(gap['mean'])} (95 % interval over images"
            f" {_interval(images[_MAD])}, p = {_p(images[_MAD]['p'])}), accuracy by"
            f" {_signed(accuracy['mean'])} ({_interval(images['accuracy'])})."
        ]
    else:
        too = " too" * (gap["verdict"] == accuracy["verdict"])
        lines = [
            _sentence("Mean absolute disparity", gap, seeds, tests),
            _sentence("Accuracy", accuracy, seeds, tests, too),
        ]
    if gap["mean"] < 0.0 and accuracy["mean"] < 0.0:
        lines.append(_CONSTANT)
    return lines


def _sentence(title: str, found: Mapping[str, Any], seeds: int, tests: int, too: str = "") -> str:
    if math.isnan(found["mean"]):
        return f"{title} cannot be compared: no class has two groups with enough images."
    if math.isnan(found["p"]):
        return (
            f"{title} differs by {_signed(found['mean'])} in each seed alike: how much it varies between"
            f" seeds is not known, and {NOTHING}."
        )
    p = f"p = {_p(found['p'])}"
    if tests > 1:
        p += f", {_p(found['holm_p'])} by Holm's correction for {tests} comparisons"
    if found["verdict"] in (LOWER, HIGHER):
        least, most = sorted((abs(found["low"]), abs(found["high"])))
        return (
            f"{title} is {found['verdict']}{too}, by {abs(found['mean']):.4f} (95 % interval over {seeds}"
            f" seeds {least:.4f} to {most:.4f}; {p})."
        )
    # No share can differ by more than 1.
    size = f"one of {found['detectable']:.4f}" if found["detectable"] <= 1.0 else "none, however large,"
    return (
        f"{title}: {NOTHING} ({_signed(found['mean'])}; 95 % interval over {seeds} seeds {_interval(found)};"
        f" {p}); {size} would have been found with 80 % power."
    )


def _signed(value: float, digits: int = 4) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.{digits}f}"


def _interval(found: Mapping[str, float], digits: int = 4) -> str:
    if math.isnan(found["low"]):
        return "n/a"
    return f"{_signed(found['low'], digits)} to {_signed(found['high'], digits)}"


def _p(value: float) -> str:
    return "n/a" if math.isnan(value) else "<0.0001" if value < 5e-5 else f"{value:.4f}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
