"""The sections of a report on classes: recall by group, gaps, predictions and confusions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.report import plots
from fairkd_jax.report.blocks import Block, Section, Table, Text
from fairkd_jax.report.confusion_plot import draw_confusion
from fairkd_jax.report.shown_classes import MOST_CLASSES, choose_largest, describe_choice
from fairkd_jax.report.tables import format_number

Findings = Mapping[str, Any]
_ORDER = ("teacher", "baseline", "student")
_SHIFT_LEVEL = 0.05


def name_models(findings: Findings) -> dict[str, str]:
    """Returns the title of each model by its name, in the order of the figures.

    Args:
      findings: Result of `collect_findings`.
    """
    titles = {"teacher": "teacher", "baseline": "student, not debiased", "student": "student"}
    if "baseline" in findings["models"]:
        titles["student"] = "student, debiased"
    return {name: titles[name] for name in _ORDER if name in findings["models"]}


def show_classes(findings: Findings, choice: str) -> Section:
    """Shows recall by group, gaps with intervals, and how far each gap was corrected.

    Args:
      findings: Result of `collect_findings`, with the classes to show.
      choice: Sentence that says which classes these are; "" for all.
    """
    data, titles, models = findings["data"], name_models(findings), findings["models"]
    classes, groups = data["class_names"], data["group_names"]
    recalls = {name: models[name]["recall_by_group"] for name in titles}
    alt = f"Recall of {len(classes)} classes in {' and '.join(groups)}, for {', '.join(titles.values())}."
    blocks: list[Block] = [Text(choice, "note")] if choice else []
    if len(groups) > 1:
        blocks.append(plots.draw_slopes("Recall by group", alt, classes, groups, recalls, titles))
        blocks.append(
            Text("A flat line is a class without a gap. A line that falls on both sides is no gain.", "note")
        )
    for number, pair in enumerate(models["student"]["pairs"]):
        names = [groups[g] for g in pair["groups"]]
        title = f"Gap of recall, {names[0]} minus {names[1]}"
        gaps = {
            name: tuple(models[name]["pairs"][number][key] for key in ("disparity", "low", "high"))
            for name in titles
        }
        alt = f"{title}, with 95 % intervals, for {len(classes)} classes and {len(titles)} models."
        blocks.append(plots.draw_forest(title, alt, classes, gaps, titles))
        text = (
            "Newcombe's 95 % interval of each class. One class in twenty leaves its interval by chance alone."
        )
        blocks.append(Text(text, "note"))
    for correction in findings.get("corrections", ()):
        blocks += _list_corrections(correction, classes, groups)
    if "corrections" not in findings:
        blocks.append(Text("How far each gap was corrected needs the student without debiasing.", "missing"))
    return Section("classes", "Classes", blocks)


def _list_corrections(found: Mapping[str, Any], classes: Sequence[str], groups: Sequence[str]) -> list[Block]:
    names = " minus ".join(groups[g] for g in found["groups"])
    rows = []
    for c, name in enumerate(classes):
        percent, low, high = (found[key][c] for key in ("percent", "low", "high"))
        interval = "n/a" if _is_missing(low) else f"{low:+.0f} to {high:+.0f} %"
        cells = [format_number(found[key][c], 3) for key in ("before", "after")]
        rows.append([name, *cells, "n/a" if _is_missing(percent) else f"{percent:+.0f} %", interval])
    head = ["class", "gap before", "gap after", "corrected by", "95 % interval"]
    text = (
        "100 % means that the gap is gone, a negative number that it has grown. n/a where the gap before may"
        " be 0: there is nothing to correct, as far as these images show."
    )
    return [Table(f"Correction of each class, {names}", head, rows), Text(text, "note")]


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def show_predictions(findings: Findings) -> Section:
    """Shows how often each class is predicted, the confusion matrices, and their cells that changed.

    Args:
      findings: Result of `collect_findings`.
    """
    data, titles = findings["data"], name_models(findings)
    classes, groups = data["class_names"], data["group_names"]
    blocks: list[Block] = []
    labels, members = findings["label"], findings["group"]
    for g, group in enumerate(groups):
        own = [row for row, member in enumerate(members) if member == g]
        if not own:
            continue
        bars = {"labels": _count_shares([labels[row] for row in own], len(classes))}
        share = bars["labels"]
        colours = {"labels": "#56b4e9"}
        for name, title in titles.items():
            predicted = findings["predictions"].get(name)
            if predicted is not None:
                bars[title] = _count_shares([predicted[row] for row in own], len(classes))
                colours[title] = plots.COLOURS[name]
        title = f"Share of each class, images of {group}"
        off = [max(abs(v[c] - share[c]) for v in bars.values()) for c in range(len(classes))]
        shown = choose_largest(off)
        names = [classes[c] for c in shown]
        bars = {name: [values[c] for c in shown] for name, values in bars.items()}
        alt = f"{title}: labels and what is predicted."
        blocks.append(plots.draw_bars(title, alt, names, bars, colours))
        which = "predictions and labels differ most in them"
        if note := describe_choice(len(shown), len(classes), which, "predictions/test.npz"):
            blocks.append(Text(note, "note"))
    note = "A class that is predicted more often than it occurs takes images of other classes."
    blocks += [Text(note, "note"), *_show_confusions(findings)]
    if "shift" in findings:
        blocks += _show_shift(findings["shift"], classes)
    return Section("predictions", "Predictions", blocks)


def _show_confusions(findings: Findings) -> list[Block]:
    """Shows the confusion matrix of each model, where there are few enough classes for a picture."""
    classes, blocks = findings["data"]["class_names"], list[Block]()
    if not findings["confusion"]:
        text = f"{len(classes):,} classes are too many for confusion matrices; see predictions/test.npz."
        return [Text(text, "missing")]
    for name, title in name_models(findings).items():
        if (counts := findings["confusion"].get(name)) is not None:
            right = sum(row[c] for c, row in enumerate(counts)) / sum(map(sum, counts))
            alt = f"Confusion matrix of the {title}: {100 * right:.1f} % of the images are on its diagonal."
            blocks.append(draw_confusion(f"Confusion matrix, {title}", alt, classes, counts))
    text = "In percent of the images of each label, of all groups together: the diagonal is the recall."
    return [*blocks, Text(text, "note")]


def _show_shift(shift: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[Block]:
    """Shows how the confusion matrix has changed, in the classes of the cells that changed most."""
    cells = list(zip(shift["label"], shift["prediction"], shift["change"], shift["holm_p"], strict=True))
    classes = set(range(len(names)))
    if len(names) > MOST_CLASSES:
        classes = set()
        for label, prediction, *_ in sorted(cells, key=lambda cell: (cell[3], -abs(cell[2]))):
            if len(classes | {label, prediction}) <= MOST_CLASSES:
                classes |= {label, prediction}
    shown = sorted(classes)
    places = {c: place for place, c in enumerate(shown)}
    matrix = [[0] * len(shown) for _ in shown]
    marked = []
    for label, prediction, change, p in cells:
        if label in places and prediction in places:
            matrix[places[label]][places[prediction]] = change
            marked += [(places[label], places[prediction])] * (p < _SHIFT_LEVEL)
    supported = sum(p < _SHIFT_LEVEL for *_, p in cells)
    title = "Shift of the confusion matrix, debiased minus not debiased"
    alt = f"{title}: {supported} of {len(names) ** 2} cells changed more than chance allows."
    text = (
        f"{supported} cells have a cross: McNemar's exact test, with Holm's correction over all cells,"
        " supports their change."
    )
    choice = describe_choice(len(shown), len(names), "their cells changed most")
    return [
        plots.draw_matrix(title, alt, [names[c] for c in shown], matrix, marked=marked),
        *(Text(sentence, "note") for sentence in (text, choice) if sentence),
    ]


def _count_shares(values: Sequence[int], classes: int) -> list[float]:
    counts = [0] * classes
    for value in values:
        counts[value] += 1
    return [count / len(values) for count in counts]
