"""Scoring runs: a student, its teacher and another student on a split, and what is written of that."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fairkd_jax.data.pipeline import Dataset, eval_batches
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness import fidelity, inflation, summarize
from fairkd_jax.files import write_arrays, write_text
from fairkd_jax.models import num_parameters
from fairkd_jax.training import experiment
from fairkd_jax.training.evaluation import Scores, compile_eval_step, evaluate, make_eval_step
from fairkd_jax.training.sharding import make_mesh
from fairkd_jax.training.teacher import load_run, teacher_folder
from fairkd_jax.training.trained import Trained
from fairkd_jax.training.workdir import read_config
from fairkd_jax.training.writers import jsonable


def evaluate_run(
    workdir: Path,
    *,
    split: str = "test",
    checkpoint: str = "best",
    baseline: Path | None = None,
    batch_size: int = 0,
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, Any]:
    """Scores a run's student, its teacher, and another run's student on a split.

    Writes `eval/<split>.json` and `predictions/<split>.npz` into the run's folder.

    Args:
      workdir: the run's folder.
      split: "train", "val" or "test".
      checkpoint: of the student: "best", "last" or a step's number; others are scored at their best.
      baseline: folder of a run to compare with.
      batch_size: images at a time; 0 for the run's own.
      devices: what to run on; all devices by default.

    Returns:
      What was written to the JSON file: under "teacher", "student" and "baseline" a summary each, where there
      is one; "inflation" by model; and what they were measured on.

    Raises:
      UsageError: a folder holds no run or no such checkpoint, or the runs do not fit together.
    """
    config, task = read_config(workdir)
    mesh = make_mesh(devices)
    dataset = experiment.open_data(config)
    current = experiment.task_of(dataset)
    if any(task.get(key) != value for key, value in current.items()):
        raise UsageError(f"the prepared {dataset.info.name} data are not those that {workdir} was trained on")
    trained = {}
    if "teacher" in task:
        trained["teacher"] = load_run(teacher_folder(config, workdir), "best", task, mesh)
    trained["student"] = load_run(workdir, checkpoint, task, mesh)
    configs = {"student": config}
    if baseline is not None:
        trained["baseline"] = load_run(baseline, "best", task, mesh)
        configs["baseline"], _ = read_config(baseline)
    rows = -(-(batch_size or config.batch_size) // mesh.size) * mesh.size
    scores = {name: _score(model, dataset, split, rows, mesh) for name, model in trained.items()}
    result = _result(trained, scores, configs, dataset, split) | {"split": split, **current}
    if not jax.process_index():
        _write_evaluation(workdir, split, dataset, scores, result)
    return result


def _score(model: Trained, dataset: Dataset, split: str, batch_size: int, mesh: jax.sharding.Mesh) -> Scores:
    groups = len(dataset.info.group_names)
    step = make_eval_step(model.module, image_size=model.image_size, num_groups=groups)
    batches = eval_batches(
        dataset.split(split),
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return evaluate(compile_eval_step(step, mesh), model.variables, batches, mesh)


def _result(
    trained: Mapping[str, Trained],
    scores: Mapping[str, Scores],
    configs: Mapping[str, ConfigDict],
    dataset: Dataset,
    split: str,
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    training_counts = dataset.split("train").counts
    for name, model in trained.items():
        result[name] = summarize(scores[name].counts, training_counts=training_counts) | {
            "architecture": model.architecture,
            "parameters": num_parameters(model.variables["params"]),
            "step": model.step,
            "objectives": _weights(configs[name]) if name in configs else {"cross_entropy": 1.0},
        }
    if "teacher" in result:
        groups, taught = dataset.split(split).groups, scores["teacher"].prediction
        students = [name for name in trained if name != "teacher"]
        for name in students:
            own = scores[name].prediction
            result[name] |= fidelity(own, taught, groups, len(dataset.info.group_names))
        result["inflation"] = {name: inflation(result[name], result["teacher"]) for name in students}
    return result


def _weights(config: ConfigDict) -> dict[str, float]:
    return {name: config[name].weight for name in config.objectives}


def _write_evaluation(
    workdir: Path, split: str, dataset: Dataset, scores: Mapping[str, Scores], result: Mapping[str, Any]
) -> None:
    source = dataset.split(split)
    arrays: dict[str, np.ndarray] = {
        "id": np.asarray(source.ids, dtype=np.str_),
        "label": np.asarray(source.labels),
        "group": np.asarray(source.groups),
    }
    for name, score in scores.items():
        arrays[f"{name}_prediction"] = score.prediction
        arrays[f"{name}_probabilities"] = score.probabilities
    for folder in ("predictions", "eval"):
        (workdir / folder).mkdir(exist_ok=True)
    write_arrays(workdir / "predictions" / f"{split}.npz", arrays)
    write_text(workdir / "eval" / f"{split}.json", json.dumps(jsonable(result), indent=2) + "\n")
