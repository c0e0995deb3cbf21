"""The model card of a run, in Markdown with the metadata that Hugging Face's hub reads."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fairkd_jax.report.class_sections import name_models
from fairkd_jax.report.run_sections import LIMITATIONS
from fairkd_jax.report.shown_classes import MOST_CLASSES, choose_classes, describe_choice
from fairkd_jax.report.tables import format_measure, format_method, format_number, read_warnings

Findings = Mapping[str, Any]
# Measure -> name of its metric on the hub, and its title.
_METRICS = {
    "accuracy": ("accuracy", "Top-1 accuracy"),
    "f1": ("f1", "F1, weighted"),
    "worst_group_recall": ("recall", "Recall of the worst class and group"),
    "mean_abs_disparity": ("mean_abs_disparity", "Mean absolute disparity"),
    "corrected_mean_abs_disparity": (
        "corrected_mean_abs_disparity",
        "Mean absolute disparity, corrected for chance",
    ),
}


def make_model_card(findings: Findings) -> str:
    """Makes the model card of a run's student.

    Args:
      findings: Result of `collect_findings`.

    Returns:
      Markdown with a block of YAML at its head.
    """
    student, data = findings["models"]["student"], findings["data"]
    name = _escape(str(findings["name"]))
    parts = [
        f"---\n{yaml.safe_dump(_make_metadata(findings), sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"An image classifier ({student['architecture']}, {student['parameters']:,} parameters) for"
        f" {len(data['class_names'])} classes, distilled with {_escape(format_method(student))}."
        " Made with fairkd_jax.",
        "## Uses",
        f"The model tells these classes apart: {_join(data['class_names'][:MOST_CLASSES])}"
        f"{_count_more(data['class_names'])}. It was trained and measured on"
        f" {_escape(data['dataset'])}. It is meant for research on fairness of compressed models, and for"
        " images like those. It is not meant for decisions about persons, nor to find out a person's"
        f" {_join(data['group_names'], ' or ')}.",
        "## Bias, risks and limitations",
        *_describe_bias(findings),
        *(f"- {text}" for text in LIMITATIONS),
        "## Training",
        _describe_training(findings),
        "## Evaluation",
        *_describe_evaluation(findings),
        "## How to get started",
        f"`fairkd-eval {_escape(findings['folder'])}` scores the model, and `fairkd-report"
        f" {_escape(findings['folder'])}` draws its figures.",
    ]
    return "\n\n".join(parts) + "\n"


def _make_metadata(findings: Findings) -> dict[str, Any]:
    """Makes the metadata: tags, and the results that the hub shows."""
    student, data = findings["models"]["student"], findings["data"]
    results = [
        {"type": kind, "value": round(float(student[key]), 6), "name": title}
        for key, (kind, title) in _METRICS.items()
        if student.get(key) is not None and not math.isnan(student[key])
    ]
    return {
        "library_name": "fairkd_jax",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "fairness", "knowledge-distillation", "jax"],
        "model-index": [
            {
                "name": str(findings["name"]),
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {
                            "type": str(data["dataset"]),
                            "name": str(data["dataset"]),
                            "split": "test",
                        },
                        "metrics": results,
                    }
                ],
            }
        ],
    }


def _describe_bias(findings: Findings) -> list[str]:
    student = findings["models"]["student"]
    disparity, floor = (format_number(student[key], 3) for key in ("mean_abs_disparity", "floor"))
    corrected = format_number(student["corrected_mean_abs_disparity"], 3)
    interval = format_measure(student["corrected_interval"])
    worst = student["worst_group"]
    texts = [
        f"Per class, the recall of the groups differs by {disparity} on average; a model without bias would"
        f" show {floor} on these images by chance. Corrected for chance it is {corrected} (95 % interval"
        f" {interval})."
    ]
    if worst:
        names = findings["data"]["class_names"], findings["data"]["group_names"]
        cell = f"class {_escape(names[0][worst['class']])}, group {_escape(names[1][worst['group']])}"
        recall = format_number(student["worst_group_recall"], 3)
        texts.append(f"The worst recall of a class in a group is {recall} ({cell}).")
    return [*texts, *(f"Warning: {_escape(text)}." for text in read_warnings(student))]


def _describe_training(findings: Findings) -> str:
    settings = findings["settings"]
    sizes = findings["data"]["num_examples"]
    shown = ", ".join(f"{number:,} in {split}" for split, number in sizes.items())
    teacher = findings["models"].get("teacher")
    taught = f" Its teacher is {teacher['architecture']}." if teacher else ""
    return (
        f"{shown} images; {settings['epochs']} epochs of batches of {settings['batch_size']}, seed"
        f" {settings['seed']}.{taught} All settings are in `report.json` of `fairkd-report`."
    )


def _count_more(names: Sequence[str]) -> str:
    more = len(names) - MOST_CLASSES
    return f" and {more:,} more" if more > 0 else ""


def _describe_evaluation(findings: Findings) -> list[str]:
    """Makes the tables of all models, and of the student's recall by class and group with intervals."""
    titles, models, data = name_models(findings), findings["models"], findings["data"]
    rows = [
        [title, *(format_measure(models[name][key]) for name in titles)]
        for key, (_, title) in _METRICS.items()
    ]
    parts = [
        f"The student is its {findings['checkpoint']} checkpoint, of step {models['student']['step']}.",
        _make_table(["measure", *titles.values()], rows),
    ]
    groups = data["group_names"]
    shown = choose_classes(findings)
    which = "the images support their gaps most, in any model"
    if choice := describe_choice(len(shown), len(data["class_names"]), which):
        parts.append(choice)
    for pair in models["student"]["pairs"]:
        first, second = (groups[g] for g in pair["groups"])
        recall = models["student"]["recall_by_group"]
        head = ["class", f"recall: {first}", f"recall: {second}", "gap", "95 % interval"]
        rows = [
            [
                name,
                *(format_number(recall[g][c], 3) for g in pair["groups"]),
                format_number(pair["disparity"][c], 3),
                format_measure([pair["low"][c], pair["high"][c]]),
            ]
            for c, name in ((c, data["class_names"][c]) for c in shown)
        ]
        parts.append(_make_table(head, rows))
    return parts


def _make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)


def _join(names: Sequence[str], last: str = ", ") -> str:
    return last.join(map(_escape, names))


def _escape(text: str) -> str:
    """Returns a text that Markdown shows as it is, in one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~!])", r"\\\1", line) if line != "---" else line
