"""The numbers of a report on a sweep: its methods over their seeds, and the choice that validation makes.

Nothing here imports JAX.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.choice import choose_method
from fairkd_jax.evaluation.collect import SEED, CollectedRuns, to_number
from fairkd_jax.report.curves import ADVANTAGE, read_curves
from fairkd_jax.report.tables import find_measure
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.status import read_evaluation
from fairkd_jax.runs.versions import describe_earlier_objectives

LAMBDA = ".weight"  # end of the key that the curves run over
_MEASURES = {
    "accuracy": "accuracy",
    "disparity": "mean_abs_disparity",
    "corrected": "corrected_mean_abs_disparity",
    "floor": "floor",
    "worst_recall": "worst_group_recall",
    "classes_predicted": "diagnostics.classes_predicted",
    "probe": "probe.embedding.mlp.advantage",
    "advantage": f"last_logged.{ADVANTAGE}",
}


def collect_sweep(
    folder: Path, *, margin: float = 0.01, max_disparity: float | None = None
) -> dict[str, Any]:
    """Collects the numbers of the runs in a folder, a method at a time.

    Args:
      folder: Folder of evaluated runs.
      margin: Accuracy on validation that the choice may lose, see `choose_method`.
      max_disparity: Bound of the choice, see `choose_method`; None for none.

    Returns:
      `keys`, which differ between the methods; `lambda_key`, the swept weight or ""; `methods`, each with its
      `values` by key, `family` (all values but lambda), `lambda`, `seeds`, `runs` and for each measure its
      fields of `summarize_seeds`, `is_chosen` and `is_dominated`;
      `constant_accuracy`, of the answer that is always the most frequent class; the `reason` of the choice.

    Raises:
      UsageError: The folder holds no evaluated run, runs on other data, or a damaged file.
    """
    runs = CollectedRuns(folder)
    choice = choose_method(runs.rows, runs.methods, runs.images, max_disparity=max_disparity, margin=margin)
    keys = [key for key in runs.keys if key != SEED]
    lambda_key = _find_lambda(keys, runs.rows)
    shown = tqdm(runs.rows, desc="reading runs", unit="run", disable=not sys.stderr.isatty())
    evaluations = [_read_run(folder, str(row["run"])) for row in shown]
    _check_same_data(evaluations, [str(row["run"]) for row in runs.rows])
    places: dict[Any, list[int]] = {}
    for place, key in enumerate(runs.methods):
        places.setdefault(key, []).append(place)
    methods: list[dict[str, Any]] = [
        _describe_method(runs.rows, evaluations, own, keys, lambda_key)
        | {"is_chosen": set(own) == set(choice.rows)}
        for own in places.values()
    ]
    _name_families(methods, [key for key in keys if key != lambda_key])
    for method in methods:
        method["is_dominated"] = any(_dominates(other, method) for other in methods)
    first = evaluations[0]["student"]
    return {
        "folder": str(folder),
        "data": {key: evaluations[0].get(key) for key in ("dataset", "class_names", "group_names")},
        "num_examples": first["num_examples"],
        "keys": keys,
        "lambda_key": lambda_key,
        "methods": methods,
        "constant_accuracy": max(first["counts_by_class"]) / first["num_examples"],
        "reason": choice.reason,
        "left_out": dict(runs.left_out),
    }


def _check_same_data(evaluations: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Checks that all runs were measured on the same test images.

    Raises:
      UsageError: Two runs were measured on other images, classes or groups.
    """
    for name, other in zip(names, evaluations, strict=True):
        for what, key in (("classes", "class_names"), ("groups", "group_names"), ("test images", "digests")):
            values = [found.get(key) for found in (evaluations[0], other)]
            if key == "digests":
                values = [(value or {}).get("test") for value in values]
            if values[0] != values[1]:
                raise UsageError(
                    f"{names[0]} and {name} were measured on other {what}; name a folder of runs on the same"
                    " data"
                )


def _find_lambda(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Finds the weight with the most values; "" where no weight differs between the runs."""
    found = {
        key: len({row[key] for row in rows})
        for key in keys
        if key.endswith(LAMBDA) and all(isinstance(row[key], int | float) for row in rows)
    }
    return max(found, key=lambda key: found[key]) if found else ""


def _read_run(folder: Path, name: str) -> dict[str, Any]:
    """Reads the evaluation of a run; its student has the last value of each logged curve, too."""
    own = RunFolder(folder if name == folder.name and RunFolder(folder).is_run() else folder / name)
    content = read_evaluation(own.path, "test")
    last = {key: values[-1] for key, (_, values) in read_curves(own.metrics).items()}
    content["student"]["last_logged"] = last
    return content


def _describe_method(
    rows: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    places: Sequence[int],
    keys: Sequence[str],
    lambda_key: str,
) -> dict[str, Any]:
    first, students = rows[places[0]], [evaluations[place]["student"] for place in places]
    values = {key: first[key] for key in keys}
    return {
        "values": values,
        "family": _label_method(students[0]),
        "lambda": values.get(lambda_key, math.nan),
        "seeds": [rows[place][SEED] for place in places],
        "runs": [rows[place]["run"] for place in places],
        "measures": {
            name: summarize_seeds([to_number(find_measure(student, key)) for student in students])
            for name, key in _MEASURES.items()
        },
    }


def _label_method(student: Mapping[str, Any]) -> str:
    """Returns the labels of a method's objectives and of its balancing, without weights."""
    methods = student.get("methods") or describe_earlier_objectives(student["objectives"])
    return " + ".join([*(methods[name]["label"] for name in student["objectives"]), *student["balancing"]])


def _name_families(methods: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """Adds to the name of a family the keys that tell it from others of the same objectives.

    Two methods that no key tells apart get the name of their first run.
    """
    by_label: dict[str, list[dict[str, Any]]] = {}
    for method in methods:
        by_label.setdefault(method["family"], []).append(method)
    for own in by_label.values():
        differing = [key for key in keys if len({repr(method["values"][key]) for method in own}) > 1]
        for method in own:
            words = [f"{key}={method['values'][key]}" for key in differing]
            method["family"] = ", ".join([method["family"], *words])
    places = [(method["family"], str(method["lambda"])) for method in methods]
    for method, place in zip(methods, places, strict=True):
        if places.count(place) > 1:
            method["family"] += f" ({method['runs'][0]})"


def summarize_seeds(values: Sequence[float]) -> dict[str, float]:
    """Computes the mean over seeds and its 95 % t interval.

    Args:
      values: One value for each seed.

    Returns:
      `mean`, `low`, `high` and the standard `deviation`; all but the mean are NaN for a single seed, and all
      are NaN where a value is NaN.
    """
    array = np.asarray(values, np.float64)
    mean, deviation, half = float(array.mean()), math.nan, math.nan
    if array.size > 1:
        deviation = float(array.std(ddof=1))
        half = float(stats.t.ppf(0.975, array.size - 1) * deviation / math.sqrt(array.size))
    return {"mean": mean, "low": mean - half, "high": mean + half, "deviation": deviation}


def _dominates(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether a method is at least as good in both means, and better in one."""
    pairs = [
        (first["measures"][name]["mean"] * sign, other["measures"][name]["mean"] * sign)
        for name, sign in (("accuracy", 1), ("corrected", -1))
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
