"""Evaluated runs that only look as if they had been trained."""

import dataclasses
import json

import numpy as np
import pytest

from fairkd_jax.digests import write_arrays, write_json
from fairkd_jax.fairness import compute_inflation, diagnose, summarize
from fairkd_jax.fairness.probabilities import compute_probability_measures
from fairkd_jax.fairness.published_measures import compute_cell_accuracies, compute_rate_gaps
from fairkd_jax.files import make_jsonable
from fairkd_jax.recipe.sections import ModelRecipe

# What a manifest may hold.
HOSTILE = ["</script><script>alert(1)</script>", '"quoted" & <b>bold</b>', "\u202eright to left", "=1+1"]
GROUPS = ["dark <i>", "light"]
IMAGES = 400


def count(label, group, prediction, classes, groups):
    counts = np.zeros((groups + 1, classes, classes), np.int64)
    np.add.at(counts, (np.where(group < 0, groups, group), label, prediction), 1)
    return counts


def describe(label, group, prediction, classes, groups):
    counts = count(label, group, prediction, classes, groups)
    training = np.arange(1, groups * classes + 1).reshape(groups, classes)
    probabilities = np.full((len(label), classes), 0.1)
    probabilities[np.arange(len(label)), prediction] = 1.1 - 0.1 * classes
    return summarize(counts, training_counts=training, num_resamples=50) | {
        "rates": compute_rate_gaps(counts[:-1]),
        **compute_cell_accuracies(counts[:-1], training),
        **compute_probability_measures(probabilities, label, group, groups),
        "architecture": "toy",
        "parameters": 1234,
        "step": 10,
        "objectives": {"cross_entropy": 1.0, "adversary": 1.0},
        "methods": {
            "cross_entropy": {"label": "CE", "debiases": False, "influence": "weighted"},
            "adversary": {"label": "adversary", "debiases": True, "influence": "reversal"},
        },
        "balancing": [],
        "diagnostics": diagnose(counts, training),
    }


def config_of(weight):
    return {
        "seed": 0,
        "objectives": ["cross_entropy", "adversary"],
        "cross_entropy": {"weight": 1.0},
        "adversary": {"weight": weight},
        "student": dict.fromkeys(field.name for field in dataclasses.fields(ModelRecipe)),
        "teacher": {"checkpoint": "", "architecture": "big", "pretrained": "", "image_size": None},
        "optimizer": {"learning_rate": 0.1},
        "data": {"source": "", "name": "manifest"},
        "batch_size": 8,
        "epochs": 2,
    }


def draw_images(classes, groups, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "id": np.array([f"<img src=x>{i}" for i in range(IMAGES)]),
        "label": rng.integers(0, classes, IMAGES),
        "group": rng.integers(-1, groups, IMAGES),
    }


def write_folder(folder, images, prediction, *, classes, groups, weight, teacher=None, **changes):
    """Writes the folder of a run; `changes` are entries of the evaluation."""
    sizes = len(classes), len(groups)
    task = {"dataset": "animals", "class_names": classes, "group_names": groups}
    task |= {"num_examples": {"train": 50, "test": IMAGES}, "digests": {"test": "d"}}
    arrays = images | {"student_prediction": prediction}
    result = {"student": describe(images["label"], images["group"], prediction, *sizes)}
    if teacher is not None:
        result["teacher"] = describe(images["label"], images["group"], teacher, *sizes)
        result["inflation"] = {"student": compute_inflation(result["student"], result["teacher"])}
        arrays["teacher_prediction"] = teacher
        task["teacher"] = {"architecture": "big", "step": 3, "fingerprint": "t"}
    for part in ("eval", "predictions"):
        (folder / part).mkdir(parents=True)
    write_json(folder / "config.json", config_of(weight) | {"version": 1, "task": task, "methods": {}})
    described = {"split": "test", "checkpoint": "best", **task} | changes
    write_json(folder / "eval" / "test.json", make_jsonable(described | result))
    write_arrays(folder / "predictions" / "test.npz", arrays)
    lines = [{"step": step, "loss": 1 / step, "validation/accuracy": 0.1 * step} for step in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def make_report_run(tmp_path):
    """Returns a function that writes a run, with its run without debiasing where `baseline` is true."""

    def make(classes=HOSTILE, groups=GROUPS, *, baseline=True, teacher=True, **changes):
        images, rng = draw_images(len(classes), len(groups)), np.random.default_rng(1)
        wrong = (images["label"] + 1) % len(classes)
        predictions = {}
        for name, bias in (("student", 0.1), ("baseline", 0.5), ("teacher", 0.4)):
            right = rng.random(IMAGES) < 0.9 - bias * (images["group"] == 0)
            predictions[name] = np.where(right, images["label"], wrong)
        common = {
            "classes": classes,
            "groups": groups,
            "teacher": predictions["teacher"] if teacher else None,
        }
        folder = tmp_path / "run <b>"
        write_folder(folder, images, predictions["student"], weight=1.0, **common)
        if baseline:
            write_folder(
                folder / "baseline", images, predictions["baseline"], weight=0.0, **common, **changes
            )
        return folder, images, predictions

    return make
