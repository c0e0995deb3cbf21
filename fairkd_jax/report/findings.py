"""The numbers of a report on one run, read from its folder, ready for JSON.

Nothing here imports JAX.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.digests import read_arrays, read_json
from fairkd_jax.errors import reading
from fairkd_jax.evaluation.compare import compare_runs
from fairkd_jax.evaluation.evaluated_run import check_same_images, read_run
from fairkd_jax.fairness.changes import compute_confusion_shift, compute_gap_corrections
from fairkd_jax.fairness.paired_comparison import count_paired_outcomes
from fairkd_jax.report.curves import read_curves
from fairkd_jax.runs.folder import find_teacher, flatten, read_run_config, without_unused
from fairkd_jax.runs.paths import RunFolder

SPLIT = "test"
STUDENT, TEACHER, BASELINE = "student", "teacher", "baseline"


def collect_findings(folder: Path) -> dict[str, Any]:
    """Collects all numbers of the report on a run.

    Args:
      folder: The run's folder. The run without debiasing in its folder `baseline` counts where it was
        evaluated.

    Returns:
      `folder`, `settings`, `commands`, `checkpoints` of the students; `data` (names, images by
      split, counts of each split); `models` (the summary of each model), `inflation`; `label` and `group` of
      each test image, and `predictions` of each model; `curves` of each run. With a baseline: `comparison`,
      see `compare_runs`, `corrections` and `shift`. Numbers that are missing are None or NaN.

    Raises:
      UsageError: The folder holds no evaluated run, or a file is damaged.
    """
    saved, run = read_run_config(folder), read_run(folder, SPLIT)
    evaluation = _read_evaluation(folder)
    models = {name: evaluation[name] for name in (TEACHER, STUDENT) if name in evaluation}
    predictions = {STUDENT: run.prediction}
    arrays = read_arrays(RunFolder(folder).predictions(SPLIT), f"run `fairkd-eval {folder}` again")
    if f"{TEACHER}_prediction" in arrays:
        predictions[TEACHER] = arrays[f"{TEACHER}_prediction"].astype(np.int64)
    folders = {STUDENT: folder}
    if TEACHER in models:
        folders[TEACHER] = find_teacher(saved.config["teacher"]["checkpoint"], folder)
    found: dict[str, Any] = {
        "folder": str(folder),
        "settings": flatten(without_unused(saved.config, set(saved.config["objectives"]))),
        "commands": [f"fairkd-eval {folder} --checkpoint {run.checkpoint}", f"fairkd-report {folder}"],
        "data": {key: evaluation.get(key, saved.data_info.get(key)) for key in _DATA_KEYS},
        "inflation": evaluation.get("inflation", {}),
        "checkpoints": {STUDENT: run.checkpoint},
    }
    baseline = RunFolder(folder).baseline
    if _is_evaluated(baseline):
        other = read_run(baseline, SPLIT)
        check_same_images(run, other, SPLIT)
        content = _read_evaluation(baseline)
        models[BASELINE], predictions[BASELINE] = content[STUDENT], other.prediction
        folders[BASELINE], found["checkpoints"][BASELINE] = baseline, other.checkpoint
        if STUDENT in content.get("inflation", {}):
            found["inflation"] = found["inflation"] | {BASELINE: content["inflation"][STUDENT]}
        found["comparison"] = compare_runs([baseline, folder], split=SPLIT)
        found |= _compare_predictions(run.label, run.group, predictions, found["data"])
    return found | {
        "models": models,
        "label": run.label.tolist(),
        "group": run.group.tolist(),
        "predictions": {name: values.tolist() for name, values in predictions.items()},
        "curves": {name: read_curves(RunFolder(path).metrics) for name, path in folders.items()},
    }


_DATA_KEYS = ("dataset", "class_names", "group_names", "num_examples", "counts")


def _is_evaluated(folder: Path) -> bool:
    own = RunFolder(folder)
    return own.is_run() and own.evaluation(SPLIT).exists() and own.predictions(SPLIT).exists()


def _read_evaluation(folder: Path) -> dict[str, Any]:
    path = RunFolder(folder).evaluation(SPLIT)
    with reading(str(path), f"run `fairkd-eval {folder}` again"):
        return read_json(path)


def _compare_predictions(
    label: np.ndarray, group: np.ndarray, predictions: Mapping[str, np.ndarray], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Compares the students without and with debiasing image by image."""
    classes, groups = len(data["class_names"]), len(data["group_names"])
    before, after = predictions[BASELINE], predictions[STUDENT]
    outcomes = count_paired_outcomes(
        group, label, before == label, after == label, groups=groups, classes=classes
    )
    pairs = [(a, b) for a in range(groups) for b in range(a + 1, groups)]
    return {
        "corrections": [
            {"groups": list(pair), **compute_gap_corrections(outcomes, pair=pair)} for pair in pairs
        ],
        "shift": compute_confusion_shift(label, before, after, classes),
    }
