"""Runs that another one builds on: a teacher, its class means, or a student to compare with."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.training import class_means, experiment
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.class_means import ClassMeans
from fairkd_jax.training.cluster import agreed
from fairkd_jax.training.config import make_augmentation, total_steps
from fairkd_jax.training.sharding import make_mesh
from fairkd_jax.training.task import task_of
from fairkd_jax.training.trained import Trained, load_trained
from fairkd_jax.training.workdir import read_config


def teacher_folder(config: ConfigDict, workdir: Path) -> Path:
    """Where the teacher's run is."""
    return Path(config.teacher.checkpoint) if config.teacher.checkpoint else workdir / "teacher"


def load_run(workdir: Path, which: str, task: Mapping[str, Any], mesh: jax.sharding.Mesh) -> Trained:
    """The student of another run, which must have been trained on the same split of the same data."""
    config, own_task = read_config(workdir)
    if own_task["class_names"] != task["class_names"]:
        raise UsageError(f"{workdir} was trained for other classes than {task['dataset']}'s")
    # Else it may have learnt from the images that it is going to be tested on.
    if own_task["digests"] != task["digests"]:
        raise UsageError(f"{workdir} was trained on other images, or on another split of {task['dataset']}")
    return load_trained(workdir, config, own_task, which=which, mesh=mesh)


def load_teacher(workdir: Path, task: Mapping[str, Any], mesh: jax.sharding.Mesh) -> Trained:
    """The teacher, which must not change any more while a student learns from it."""
    teacher = load_run(workdir, "best", task, mesh)
    config, own_task = read_config(workdir)
    done, steps = last_step(workdir), total_steps(config, own_task["num_examples"]["train"])
    if done < steps:
        raise UsageError(f"the teacher in {workdir} is at step {done} of {steps}; finish its training first")
    return teacher


def last_step(workdir: Path) -> int:
    if not agreed((workdir / "checkpoints").exists()):
        return 0
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        return checkpoints.last_step() or 0


def teacher_class_means(
    folder: Path, teacher: Trained, dataset: Dataset, mesh: jax.sharding.Mesh
) -> ClassMeans:
    """The teacher's mean embedding of each class, computed and saved beside it when first needed."""
    path, names = folder / class_means.FILE_NAME, dataset.info.class_names
    if agreed(path.exists()):
        return class_means.load(path, teacher, names)
    found = _computed_means(folder, teacher, dataset, mesh)
    if not jax.process_index():
        try:
            class_means.save(path, found)
        except UsageError as error:  # a teacher in a folder of someone else's
            print(f"{error}; the class means are used, but not kept")
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
    teacher = load_teacher(folder, task_of(dataset), mesh)
    path = folder / class_means.FILE_NAME
    if path.exists() and not overwrite:
        return class_means.load(path, teacher, task["class_names"])
    found = _computed_means(folder, teacher, dataset, mesh)
    if not jax.process_index():
        class_means.save(path, found)
    return found
