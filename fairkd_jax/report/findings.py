"""The numbers of a report on one run, read from its folder, ready for JSON.

Nothing here imports JAX.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.digests import read_arrays
from fairkd_jax.errors import reading
from fairkd_jax.evaluation.compare import compare_runs
from fairkd_jax.evaluation.evaluated_run import EvaluatedRun, check_same_images, read_run
from fairkd_jax.fairness.changes import compute_confusion_shift, compute_gap_corrections
from fairkd_jax.fairness.inflation import compare_with_teacher
from fairkd_jax.fairness.paired_comparison import count_paired_outcomes
from fairkd_jax.recipe.keys import DEBIASING_SWITCHES
from fairkd_jax.report.curves import read_curves
from fairkd_jax.report.data_sheet import read_data_sheet
from fairkd_jax.report.shown_classes import MOST_CLASSES
from fairkd_jax.runs.folder import (
    FREE_KEYS,
    RunConfig,
    find_teacher,
    flatten,
    read_run_config,
    without_unused,
)
from fairkd_jax.runs.paths import BEST, RunFolder
from fairkd_jax.runs.status import make_eval_command, read_evaluation

SPLIT = "test"
STUDENT, TEACHER, BASELINE = "student", "teacher", "baseline"


def collect_findings(folder: Path, checkpoint: str = BEST) -> dict[str, Any]:
    """Collects all numbers of the report on a run.

    Args:
      folder: The run's folder. The run without debiasing in its folder `baseline` counts where it was
        evaluated.
      checkpoint: The scored checkpoint of both students: "best", "last" or the number of a step.

    Returns:
      `folder`, `settings`, `commands`, `checkpoint` of the students; `data` (names, images by
      split, counts of each split); `data_sheet`, see `read_data_sheet`; `models` (the summary of each model);
      `inflation` of each student that has a teacher, see `compare_with_teacher`; `label` and `group` of each
      test image; `predictions` of each model, and their `confusion`, images by label and prediction [C][C],
      where there are few classes; `curves` of each run. With a baseline: `comparison`, see `compare_runs`,
      `other_differences`, `corrections` and `shift`. Numbers that are missing are None or NaN.

    Raises:
      UsageError: The folder holds no evaluated run, or a file is damaged.
    """
    saved, run = read_run_config(folder), read_run(folder, SPLIT, checkpoint)
    evaluation = read_evaluation(folder, SPLIT, checkpoint)
    models = {name: evaluation[name] for name in (TEACHER, STUDENT) if name in evaluation}
    predictions, taught = {STUDENT: run.prediction}, _read_teacher_predictions(run, checkpoint)
    if taught is not None:
        predictions[TEACHER] = taught
    folders = {STUDENT: folder}
    if TEACHER in models:
        folders[TEACHER] = find_teacher(saved.config["teacher"]["checkpoint"], folder)
    found = _describe_run(folder, saved, checkpoint) | {
        "data": {key: evaluation.get(key, saved.data_info.get(key)) for key in _DATA_KEYS},
        "inflation": {},
    }
    if taught is not None:
        found["inflation"][STUDENT] = _compare_with_teacher(run, taught)
    baseline = RunFolder(folder).baseline
    if _is_evaluated(baseline, checkpoint):
        other = read_run(baseline, SPLIT, checkpoint)
        check_same_images(run, other, SPLIT)
        content = read_evaluation(baseline, SPLIT, checkpoint)
        models[BASELINE], predictions[BASELINE] = content[STUDENT], other.prediction
        folders[BASELINE] = baseline
        if (own_teacher := _read_teacher_predictions(other, checkpoint)) is not None:
            found["inflation"][BASELINE] = _compare_with_teacher(other, own_teacher)
        found["other_differences"] = _list_other_differences(read_run_config(baseline), saved)
        found["comparison"] = compare_runs([baseline, folder], split=SPLIT, checkpoint=checkpoint)
        found |= _compare_predictions(run.label, run.group, predictions, found["data"])
    return found | {
        "models": models,
        "label": run.label.tolist(),
        "group": run.group.tolist(),
        "predictions": {name: values.tolist() for name, values in predictions.items()},
        "confusion": _count_confusions(run.label, predictions, len(found["data"]["class_names"])),
        "curves": {name: read_curves(RunFolder(path).metrics) for name, path in folders.items()},
    }


def _list_other_differences(before: RunConfig, after: RunConfig) -> list[str]:
    """Lists the keys in which two runs differ, but for those of debiasing and of the teacher."""
    used = {*before.config["objectives"], *after.config["objectives"]}
    expected = {f"{section}.{key}" for section, key in DEBIASING_SWITCHES}
    expected |= {f"{name}.weight" for name in used if after.methods.get(name, {}).get("debiases", True)}
    first, second = (flatten(without_unused(run.config, used)) for run in (before, after))
    return [
        f"{key} ({first.get(key)}, and {second.get(key)} with debiasing)"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
        and key not in (*FREE_KEYS, *expected)
        and not key.startswith("teacher.")
    ]


def _describe_run(folder: Path, saved: RunConfig, checkpoint: str) -> dict[str, Any]:
    """Describes where the numbers come from."""
    return {
        "folder": str(folder),
        "settings": flatten(without_unused(saved.config, set(saved.config["objectives"]))),
        "commands": [
            f"fairkd-eval {folder} --checkpoint {checkpoint}",
            f"fairkd-report {folder} --checkpoint {checkpoint}",
        ],
        "data_sheet": read_data_sheet(saved),
        "checkpoint": checkpoint,
    }


_DATA_KEYS = ("dataset", "class_names", "group_names", "num_examples", "counts")


def _is_evaluated(folder: Path, checkpoint: str) -> bool:
    own = RunFolder(folder)
    files = own.evaluation(SPLIT, checkpoint), own.predictions(SPLIT, checkpoint)
    return own.is_run() and all(path.exists() for path in files)


def _count_confusions(
    label: np.ndarray, predictions: Mapping[str, np.ndarray], classes: int
) -> dict[str, list[list[int]]]:
    """Counts the confusion matrix of each model; nothing where there are too many classes to show."""
    found = {}
    for name, prediction in predictions.items() if classes <= MOST_CLASSES else ():
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (label, prediction), 1)
        found[name] = counts.tolist()
    return found


def _read_teacher_predictions(run: EvaluatedRun, checkpoint: str) -> np.ndarray | None:
    """Reads the teacher's predictions, int64 [N]; None where the teacher was not scored."""
    path, classes = RunFolder(run.folder).predictions(SPLIT, checkpoint), len(run.data_info["class_names"])
    advice = f"run `{make_eval_command(run.folder, SPLIT, checkpoint)}` again"
    arrays = read_arrays(path, advice)
    if (predictions := arrays.get(f"{TEACHER}_prediction")) is None:
        return None
    with reading(str(path), advice):
        found = predictions.astype(np.int64, casting="safe")
        if found.shape != run.label.shape or not ((found >= 0) & (found < classes)).all():
            raise ValueError("the teacher's predictions are not those of its images")
    return found


def _compare_with_teacher(run: EvaluatedRun, taught: np.ndarray) -> dict[str, Any]:
    """Measures the inflation of a student's disparity against its teacher on the same images."""
    groups, classes = (len(run.data_info[key]) for key in ("group_names", "class_names"))
    right = run.prediction == run.label, taught == run.label
    outcomes = count_paired_outcomes(run.group, run.label, *right, groups=groups, classes=classes)
    return compare_with_teacher(outcomes)


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
        "shift": compute_confusion_shift(label, before, after),
    }
