"""A whole run: its teacher, and its training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.models import num_parameters
from fairkd_jax.training import experiment
from fairkd_jax.training.config import check, teacher_config, uses_class_means, uses_teacher
from fairkd_jax.training.loop import Program, fit
from fairkd_jax.training.sharding import make_mesh
from fairkd_jax.training.teacher import last_step, load_teacher, teacher_class_means, teacher_folder
from fairkd_jax.training.trained import Trained
from fairkd_jax.training.workdir import check_free, claim, locked
from fairkd_jax.training.writers import JsonlWriter, Writer, require_tensorboard, tensorboard_writer


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
        teacher = load_teacher(teacher_folder(config, workdir), task, mesh)
        identity = {"architecture": teacher.architecture, "step": teacher.step}
        task |= {"teacher": identity | {"fingerprint": teacher.fingerprint()}}
        if uses_class_means(config):
            means = teacher_class_means(teacher_folder(config, workdir), teacher, dataset, mesh).means
    program = experiment.build(config, dataset, teacher, mesh, name, means)
    claim(workdir, config, task)
    if _is_finished(workdir, program):
        _say(f"{name}: this run is complete, {program.total_steps} steps, in {workdir}")
        return
    _introduce(config, program, workdir, dataset, teacher)
    fit(program, workdir, lambda step: _writers(config, workdir, step))


def _is_finished(workdir: Path, program: Program) -> bool:
    last = last_step(workdir)
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


def _introduce(
    config: ConfigDict, program: Program, workdir: Path, dataset: Dataset, teacher: Trained | None
) -> None:
    """Says what is about to be trained; the table of all parameters goes into the folder."""
    params = program.abstract_state.params
    write_text(
        workdir / "parameters.txt",
        parameter_overview.get_parameter_overview(params, include_stats=False) + "\n",
    )
    sizes = ", ".join(f"{group} {num_parameters(tree):,}" for group, tree in params.items())
    if teacher:
        sizes += f", teacher {num_parameters(teacher.variables['params']):,}"
    _say(
        f"{program.name}: {config.student.architecture} on {dataset.info.name}, "
        f"{len(program.train):,} images, {program.total_steps:,} steps of {config.batch_size} on "
        f"{program.mesh.size} {jax.default_backend()} device(s); parameters: {sizes} (see parameters.txt); "
        f"objectives: {', '.join(config.objectives)}; folder {workdir}"
    )


def _say(text: str) -> None:
    if not jax.process_index():
        print(text, flush=True)
