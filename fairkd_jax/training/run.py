"""A whole run: its teacher, its training, and the evaluation of what came out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from fairkd_jax.data.pipeline import Dataset, eval_batches
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness import inflation, summarize
from fairkd_jax.files import write_arrays, write_text
from fairkd_jax.models import num_parameters
from fairkd_jax.training import class_means, experiment
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.class_means import ClassMeans
from fairkd_jax.training.config import (
    check,
    make_augmentation,
    teacher_config,
    total_steps,
    uses_class_means,
    uses_teacher,
)
from fairkd_jax.training.evaluation import Scores, compile_eval_step, evaluate, make_eval_step
from fairkd_jax.training.experiment import Trained
from fairkd_jax.training.loop import Program, fit
from fairkd_jax.training.sharding import make_mesh
from fairkd_jax.training.workdir import check_free, claim, locked, read_config
from fairkd_jax.training.writers import (
    JsonlWriter,
    Writer,
    jsonable,
    require_tensorboard,
    tensorboard_writer,
)


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    name: str = "student",
) -> None:
    """Trains a student, and its teacher before it where none is given; goes on where a run was stopped.

    Args:
      config: every key of configs/base.py.
      workdir: the run's folder; made where it does not exist.
      devices: what to run on; all devices by default.
      name: what stands in front of the progress lines.

    Raises:
      UsageError: the config, the data or the folder does not allow this run.
      Diverged: a loss or gradient is not finite.
      Stopped: SIGINT or SIGTERM arrived.
    """
    check(config)
    if config.tensorboard:
        require_tensorboard()
    mesh = make_mesh(devices)
    dataset = experiment.open_data(config)
    task = experiment.task_of(dataset)
    check_free(workdir, config, task)
    experiment.check_task(config, dataset)
    with locked(workdir):
        _train(config, workdir, dataset, task, mesh, name)


def _train(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    task: dict[str, Any],
    mesh: jax.sharding.Mesh,
    name: str,
) -> None:
    """What `train` does once the folder is its own."""
    teacher, means = None, None
    if uses_teacher(config):
        if not config.teacher.checkpoint:
            devices = mesh.devices.flatten().tolist()
            train(teacher_config(config), workdir / "teacher", devices=devices, name="teacher")
        teacher = _load_teacher(teacher_folder(config, workdir), task, mesh)
        identity = {"architecture": teacher.architecture, "step": teacher.step}
        task |= {"teacher": identity | {"fingerprint": teacher.fingerprint()}}
        if uses_class_means(config):
            means = _class_means(teacher_folder(config, workdir), teacher, dataset, mesh).means
    program = experiment.build(config, dataset, teacher, mesh, name, means)
    claim(workdir, config, task)
    if _is_finished(workdir, program):
        _say(f"{name}: this run is complete, {program.total_steps} steps, in {workdir}")
        return
    _introduce(config, program, workdir, dataset)
    fit(program, workdir, lambda step: _writers(config, workdir, step))


def teacher_folder(config: ConfigDict, workdir: Path) -> Path:
    """Where the teacher's run is."""
    return Path(config.teacher.checkpoint) if config.teacher.checkpoint else workdir / "teacher"


def _load(workdir: Path, which: str, task: Mapping[str, Any], mesh: jax.sharding.Mesh) -> Trained:
    """The student of another run, which must have been trained on the same split of the same data."""
    config, own_task = read_config(workdir)
    if own_task["class_names"] != task["class_names"]:
        raise UsageError(f"{workdir} was trained for other classes than {task['dataset']}'s")
    # Else it may have learnt from the images that it is going to be tested on.
    if own_task["digests"] != task["digests"]:
        raise UsageError(f"{workdir} was trained on other images, or on another split of {task['dataset']}")
    return experiment.load_trained(workdir, config, own_task, which=which, mesh=mesh)


def _load_teacher(workdir: Path, task: Mapping[str, Any], mesh: jax.sharding.Mesh) -> Trained:
    """The teacher, which must not change any more while a student learns from it."""
    teacher = _load(workdir, "best", task, mesh)
    config, own_task = read_config(workdir)
    done, steps = _last_step(workdir), total_steps(config, own_task["num_examples"]["train"])
    if done < steps:
        raise UsageError(f"the teacher in {workdir} is at step {done} of {steps}; finish its training first")
    return teacher


def _class_means(folder: Path, teacher: Trained, dataset: Dataset, mesh: jax.sharding.Mesh) -> ClassMeans:
    """The teacher's mean embedding of each class, computed and saved beside it when first needed."""
    path, names = folder / class_means.FILE_NAME, dataset.info.class_names
    if path.exists():
        return class_means.load(path, teacher, names)
    found = _computed_means(folder, teacher, dataset, mesh)
    if not jax.process_index():
        try:
            class_means.save(path, found)
        except UsageError as error:  # a teacher in a folder of someone else's
            _say(f"{error}; the class means are used, but not kept")
    return found


def _computed_means(folder: Path, teacher: Trained, dataset: Dataset, mesh: jax.sharding.Mesh) -> ClassMeans:
    config, _ = read_config(folder)
    rows = -(-config.batch_size // mesh.size) * mesh.size
    return class_means.compute(
        teacher,
        dataset.split("train"),
        dataset.info.class_names,
        augmentation=make_augmentation(config),
        seed=config.data.seed,
        batch_size=rows,
        mesh=mesh,
    )


def write_class_means(
    folder: Path, *, overwrite: bool = False, devices: Sequence[jax.Device] | None = None
) -> ClassMeans:
    """Computes a finished teacher's mean embedding of each class and saves it beside the teacher.

    Args:
      folder: the teacher's run.
      overwrite: whether to replace what is there.
      devices: what to run on; all devices by default.

    Returns:
      What is now in the file `class_means.npz` of the folder.

    Raises:
      UsageError: the folder holds no finished run, its data are not at hand, or a class has no images.
    """
    config, task = read_config(folder)
    mesh = make_mesh(devices)
    dataset = experiment.open_data(config)
    teacher = _load_teacher(folder, experiment.task_of(dataset), mesh)
    path = folder / class_means.FILE_NAME
    if path.exists() and not overwrite:
        return class_means.load(path, teacher, task["class_names"])
    found = _computed_means(folder, teacher, dataset, mesh)
    if not jax.process_index():
        class_means.save(path, found)
    return found


def _last_step(workdir: Path) -> int:
    checkpoints = Checkpoints(workdir)
    step = checkpoints.last_step()
    checkpoints.close()
    return step or 0


def _is_finished(workdir: Path, program: Program) -> bool:
    last = _last_step(workdir)
    if last > program.total_steps:
        raise UsageError(f"{workdir} holds {last} steps, more than the {program.total_steps} asked for")
    return last == program.total_steps


def _writers(config: ConfigDict, workdir: Path, step: int) -> list[Writer]:
    if jax.process_index():
        return []
    writers: list[Writer] = [JsonlWriter(workdir / "metrics.jsonl", step)]
    if config.tensorboard:
        writers.append(tensorboard_writer(workdir))
    return writers


def _introduce(config: ConfigDict, program: Program, workdir: Path, dataset: Dataset) -> None:
    """Says what is about to be trained; the table of all parameters goes into the folder."""
    params = program.abstract_state.params
    write_text(
        workdir / "parameters.txt",
        parameter_overview.get_parameter_overview(params, include_stats=False) + "\n",
    )
    sizes = ", ".join(f"{group} {num_parameters(tree):,}" for group, tree in params.items())
    if program.teacher_variables:
        sizes += f", teacher {num_parameters(program.teacher_variables['params']):,}"
    _say(
        f"{program.name}: {config.student.architecture} on {dataset.info.name}, "
        f"{len(program.train):,} images, {program.total_steps:,} steps of {config.batch_size} on "
        f"{program.mesh.size} {jax.default_backend()} device(s); parameters: {sizes} (see parameters.txt); "
        f"objectives: {', '.join(config.objectives)}; folder {workdir}"
    )


def _say(text: str) -> None:
    if not jax.process_index():
        print(text, flush=True)


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
        trained["teacher"] = _load(teacher_folder(config, workdir), "best", task, mesh)
    trained["student"] = _load(workdir, checkpoint, task, mesh)
    configs = {"student": config}
    if baseline is not None:
        trained["baseline"] = _load(baseline, "best", task, mesh)
        configs["baseline"], _ = read_config(baseline)
    rows = -(-(batch_size or config.batch_size) // mesh.size) * mesh.size
    scores = {name: _score(model, dataset, split, rows, mesh) for name, model in trained.items()}
    result = _result(trained, scores, configs) | {"split": split, **current}
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
    trained: Mapping[str, Trained], scores: Mapping[str, Scores], configs: Mapping[str, ConfigDict]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, model in trained.items():
        result[name] = summarize(scores[name].counts) | {
            "architecture": model.architecture,
            "parameters": num_parameters(model.variables["params"]),
            "step": model.step,
            "objectives": _weights(configs[name]) if name in configs else {"cross_entropy": 1.0},
        }
    if "teacher" in result:
        result["inflation"] = {
            name: inflation(result[name], result["teacher"]) for name in result if name != "teacher"
        }
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
