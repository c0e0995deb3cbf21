"""The classes that a report shows where the data have many: a page with all of them would hardly open."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MOST_CLASSES = 40  # that tables and figures show
Findings = Mapping[str, Any]


def choose_classes(findings: Findings) -> list[int]:
    """Chooses the classes whose gaps the images support most: those of the least p values of any model.

    Args:
      findings: Result of `collect_findings`.

    Returns:
      Indices of at most `MOST_CLASSES` classes, in order; all where there are no more.
    """
    number = len(findings["data"]["class_names"])
    least = [math.inf] * number
    sizes = [sum(column) for column in zip(*findings["models"]["student"]["counts_by_group"], strict=True)]
    for model in findings["models"].values() if number > MOST_CLASSES else ():
        for pair in model["pairs"]:
            for c, p in enumerate(pair["p"]):
                if p is not None and p < least[c]:  # neither holds for NaN
                    least[c] = p
    ranked = sorted(range(number), key=lambda c: (least[c], -sizes[c], c))
    return sorted(ranked[:MOST_CLASSES])


def keep_classes(findings: Findings, classes: Sequence[int]) -> Findings:
    """Returns findings whose names, counts, recalls, gaps and corrections are of some classes alone.

    Args:
      findings: Result of `collect_findings`.
      classes: Indices of the classes.
    """

    def take(values: Sequence[Any]) -> list[Any]:
        return [values[c] for c in classes]

    def take_pair(pair: Mapping[str, Any]) -> dict[str, Any]:
        return {key: values if key == "groups" else take(values) for key, values in pair.items()}

    data = dict(findings["data"]) | {"class_names": take(findings["data"]["class_names"])}
    if data.get("counts") is not None:
        data["counts"] = {split: [take(row) for row in rows] for split, rows in data["counts"].items()}
    models = {
        name: dict(model)
        | {key: [take(row) for row in model[key]] for key in ("recall_by_group", "counts_by_group")}
        | {"pairs": [take_pair(pair) for pair in model["pairs"]]}
        for name, model in findings["models"].items()
    }
    kept = dict(findings) | {"data": data, "models": models}
    if "corrections" in findings:
        kept["corrections"] = [take_pair(found) for found in findings["corrections"]]
    return kept


def choose_largest(scores: Sequence[float]) -> list[int]:
    """Returns the indices of the `MOST_CLASSES` largest scores, in order."""
    ranked = sorted(range(len(scores)), key=lambda c: (-scores[c], c))
    return sorted(ranked[:MOST_CLASSES])


def describe_choice(shown: int, number: int, which: str, file: str = "report.json") -> str:
    """Returns a sentence that says which classes are shown; "" where all are.

    Args:
      shown: Number of classes that are shown.
      number: Number of all classes.
      which: What the shown classes have in common.
      file: Name of the file that has all classes.
    """
    if shown == number:
        return ""
    return f"{shown} of {number:,} classes are shown: {which}. The file {file} has all of them."
