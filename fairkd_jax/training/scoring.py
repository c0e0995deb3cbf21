"""Scoring runs: a student, its teacher and another student on a split, and what is written of that."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fairkd_jax.data.batches import eval_batches
from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness import alarms, fidelity, inflation, summarize
from fairkd_jax.files import write_arrays, write_text
from fairkd_jax.models import num_parameters
from fairkd_jax.training import experiment
from fairkd_jax.training.evaluation import Scores, compile_eval_step, evaluate, make_eval_step
from fairkd_jax.training.probing import check_can_probe, probe_model
from fairkd_jax.training.sharding import make_mesh
from fairkd_jax.training.task import task_of
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
    probe: bool = False,
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
      probe: whether to ask how well the group can be read from each model; see `probe_model`. Probes are
        fitted on "train" and chosen on "val": the split must be "test".
      devices: what to run on; all devices by default.

    Returns:
      What was written to the JSON file: under "teacher", "student" and "baseline" a summary each, where there
      is one, with what was probed under its "probe"; "inflation" by model; and what they were measured on.

    Raises:
      UsageError: a folder holds no run or no such checkpoint, the runs do not fit together, or there is
        nothing to probe.
    """
    config, task = read_config(workdir)
    if baseline is not None:
        read_config(baseline)  # before anything is loaded
    mesh = make_mesh(devices)
    shown = config.copy_and_resolve_references()
    if config.data.control == "shuffle":  # what was shuffled was shuffled to learn from
        shown.data.control = "none"
    dataset = experiment.open_data(shown)
    current = task_of(dataset)
    if any(task.get(key) != value for key, value in current.items()):
        raise UsageError(f"the prepared {dataset.info.name} data are not those that {workdir} was trained on")
    if probe:
        check_can_probe(dataset, split)
    trained, configs = {}, {}
    if "teacher" in task:
        trained["teacher"] = load_run(teacher_folder(config, workdir), "best", task, mesh)
        configs["teacher"], _ = read_config(teacher_folder(config, workdir))
    trained["student"] = load_run(workdir, checkpoint, task, mesh)
    configs["student"] = config
    if baseline is not None:
        trained["baseline"] = load_run(baseline, "best", task, mesh)
        configs["baseline"], _ = read_config(baseline)
    rows = -(-(batch_size or config.batch_size) // mesh.size) * mesh.size
    score = {name: _scorer(model, dataset, rows, mesh, probe) for name, model in trained.items()}
    scores = {name: score[name](split) for name in trained}
    result = _result(trained, scores, configs, dataset, split)
    result |= {"split": split, "checkpoint": checkpoint, **current}
    for name in trained if probe else ():
        result[name]["probe"] = probe_model(name, score[name], scores[name].features, dataset)
    if not probe:
        _keep_probes(workdir / "eval" / f"{split}.json", result)
    if not jax.process_index():
        _write_evaluation(workdir, split, dataset, scores, result)
    return result


def _scorer(
    model: Trained, dataset: Dataset, batch_size: int, mesh: jax.sharding.Mesh, with_features: bool
) -> Callable[[str], Scores]:
    """Scores a model on a split, by its name; compiled once for all of them."""
    step = make_eval_step(
        model.module,
        image_size=model.image_size,
        num_groups=len(dataset.info.group_names),
        with_features=with_features,
    )
    compiled = compile_eval_step(step, mesh)

    def score(split: str) -> Scores:
        batches = eval_batches(
            dataset.split(split),
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return evaluate(compiled, model.variables, batches, mesh)

    return score


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
            "objectives": _weights(configs[name]),
            "balancing": _balancing(configs[name]),
            "alarms": alarms(scores[name].counts, training_counts),
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


def _balancing(config: ConfigDict) -> list[str]:
    """What else is to be known of how a run is debiased, beside its objectives."""
    switches = {
        "balanced sampling": config.data.balance_groups,
        "balanced weights": config.cross_entropy.balanced,
        "group heads": config.student.group_heads,
    }
    if "adversary" in config.objectives:
        switches["as a ratio"] = config.adversary.lambda_mode == "ratio"
        switches["by projection"] = config.adversary.projection
    switches["(positive control)"] = config.data.control == "patch"
    switches["(placebo)"] = config.data.control == "shuffle"
    return [name for name, on in switches.items() if on]


def _keep_probes(path: Path, result: dict[str, Any]) -> None:
    """Takes over what was probed before, of the same checkpoints of the run and its teacher."""
    for name in {"teacher", "student"} & result.keys():
        # There may be no such file, or a damaged one, which will be whole now.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            earlier = json.loads(path.read_text(encoding="utf-8"))[name]
            if earlier["step"] == result[name]["step"]:
                result[name]["probe"] = earlier["probe"]


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
