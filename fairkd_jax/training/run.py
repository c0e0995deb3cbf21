"""A whole run: its teacher, and its training."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.models import num_parameters
from fairkd_jax.training import experiment
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.cluster import agreed
from fairkd_jax.training.compiled import check_fits
from fairkd_jax.training.config import check, teacher_config, total_steps, uses_class_means, uses_teacher
from fairkd_jax.training.loop import Program, fit
from fairkd_jax.training.member import DIVERGED_FILE, Diverged
from fairkd_jax.training.members import is_population, members_of
from fairkd_jax.training.sharding import make_mesh, replicate
from fairkd_jax.training.task import check_task, task_of
from fairkd_jax.training.teacher import last_step, load_teacher, teacher_class_means, teacher_folder
from fairkd_jax.training.trained import Trained
from fairkd_jax.training.workdir import check_free, claim, locked
from fairkd_jax.training.writers import JsonlWriter, Writer, require_tensorboard, tensorboard_writer

MEMBERS_FOLDER = "members"


class MembersDiverged(Diverged):
    """Some members of a population diverged; all others are complete.

    Attributes:
      complete: the names of these others.
    """

    def __init__(self, diverged: Sequence[str], complete: Sequence[str]) -> None:
        self.complete = tuple(complete)
        super().__init__(
            f"{len(diverged)} of {len(diverged) + len(complete)} members diverged: {'; '.join(diverged)}; the"
            f" others are complete (a member's {DIVERGED_FILE} says why; without that file it is tried again)"
        )


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    name: str = "student",
) -> None:
    """Trains a student, and its teacher before it where none is given; goes on where a run was stopped.

    Where the config stands for a population, all its students are trained in one program, each into a folder
    of its own below `members`, which looks like that of its lone run.

    Args:
      config: every key of configs/base.py.
      workdir: the run's folder; made where it does not exist.
      devices: what to run on; all devices by default.
      name: what stands in front of the progress lines.

    Raises:
      UsageError: the config, the data or the folder does not allow this run.
      Diverged: a loss or gradient is not finite.
      MembersDiverged: the same of members of a population.
      Stopped: SIGINT or SIGTERM arrived.
    """
    check(config)
    if config.tensorboard:
        require_tensorboard()
    members = members_of(config) if is_population(config) else {}
    dataset = experiment.open_data(config)
    task = task_of(dataset)
    folders = {member: workdir / MEMBERS_FOLDER / member for member in members}
    if not members:
        check_free(workdir, config, task)
    for member, own in members.items():
        check_free(folders[member], own, task)
    check_task(config, dataset)
    with locked(workdir):
        teacher, means = _teacher(config, workdir, dataset, task, devices)
        if members:
            _train_population(config, members, folders, dataset, task, teacher, means, devices, name)
        else:
            program = experiment.build(config, dataset, teacher, make_mesh(devices), name, means)
            _train_one(config, workdir, program, dataset, task, teacher)


def member_folders(config: ConfigDict, workdir: Path) -> dict[str, Path]:
    """The folders of the students of a population, by their names; empty for a lone run."""
    members = members_of(config) if is_population(config) else {}
    return {member: workdir / MEMBERS_FOLDER / member for member in members}


def _teacher(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    task: dict[str, Any],
    devices: Sequence[jax.Device] | None,
) -> tuple[Trained | None, np.ndarray | None]:
    """The teacher, trained first where none is given, and its class means where they are needed.

    The task learns which teacher it is.
    """
    if not uses_teacher(config):
        return None, None
    folder = teacher_folder(config, workdir)
    if not config.teacher.checkpoint:
        train(teacher_config(config), folder, devices=devices, name="teacher")
    mesh = make_mesh(devices)
    teacher = load_teacher(folder, task, mesh)
    identity = {"architecture": teacher.architecture, "step": teacher.step}
    task |= {"teacher": identity | {"fingerprint": teacher.fingerprint()}}
    if not uses_class_means(config):
        return teacher, None
    return teacher, teacher_class_means(folder, teacher, dataset, mesh).means


def _train_one(
    config: ConfigDict,
    workdir: Path,
    program: Program,
    dataset: Dataset,
    task: dict[str, Any],
    teacher: Trained | None,
) -> None:
    """Trains a lone student."""
    check_free(workdir, config, task)
    finished = _is_finished(workdir, program.total_steps)
    if not finished:
        _introduce(config, program, dataset, teacher, f"folder {workdir}")
        check_fits(program)
    claim(workdir, config, task)
    if finished:
        _say(f"{program.name}: this run is complete, {program.total_steps} steps, in {workdir}")
        return
    _describe(workdir, program)
    fit(program, [workdir], functools.partial(_writers, config))


def _train_population(
    config: ConfigDict,
    members: Mapping[str, ConfigDict],
    folders: Mapping[str, Path],
    dataset: Dataset,
    task: dict[str, Any],
    teacher: Trained | None,
    means: np.ndarray | None,
    devices: Sequence[jax.Device] | None,
    name: str,
) -> None:
    """Trains the members of a population that are not done yet, as many at once as are allowed."""
    for member, own in members.items():
        own.teacher.checkpoint = str(teacher_folder(config, folders[member].parents[1]).absolute())
        check_free(folders[member], own, task)
    steps = total_steps(config, len(dataset.split("train")))
    left = [member for member in members if not _is_finished(folders[member], steps)]
    given_up = [member for member in left if agreed((folders[member] / DIVERGED_FILE).exists())]
    left = [member for member in left if member not in given_up]
    waves = _waves({member: _saved_steps(folders[member]) for member in left}, config.population.wave_size)

    def claim_all() -> None:
        for member, own in members.items():
            claim(folders[member], own, task)

    if not waves:
        claim_all()
    done = len(members) - len(left) - len(given_up)
    _say(f"{name}: {len(members)} members, {done} complete, {len(left)} to train in {len(waves)} wave(s)")
    for number, wave in enumerate(waves, 1):
        mesh = make_mesh(devices, members=len(wave))
        placed = None if teacher is None else replace(teacher, variables=replicate(teacher.variables, mesh))
        called = f"{name} {number}/{len(waves)}" if len(waves) > 1 else name
        program = experiment.build(
            config, dataset, placed, mesh, called, means, [members[member] for member in wave]
        )
        _introduce(config, program, dataset, teacher, f"{len(wave)} members below {folders[wave[0]].parent}")
        if number == 1:  # the largest; if it is refused, no folder stands in the way of another try
            check_fits(program)
            claim_all()
        for member in wave:
            _describe(folders[member], program)
        with contextlib.suppress(Diverged):  # all of this wave; the next one may do better
            fit(program, [folders[member] for member in wave], functools.partial(_writers, config))
        del program  # what it holds on the devices is not for the next wave
        given_up += [member for member in wave if agreed((folders[member] / DIVERGED_FILE).exists())]
    if given_up:
        raise MembersDiverged(given_up, [member for member in members if member not in given_up])


def _saved_steps(workdir: Path) -> frozenset[int]:
    if not agreed((workdir / "checkpoints").exists()):
        return frozenset()
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
        return frozenset(checkpoints.steps())


def _waves(saved: Mapping[str, frozenset[int]], size: int) -> list[list[str]]:
    """Members that can go on together: from a step that all of them have saved, or from none; most first."""
    groups = [list(saved)] if saved and frozenset.intersection(*saved.values()) else []
    if not groups:
        by_step: dict[int, list[str]] = {}
        for member, steps in saved.items():
            by_step.setdefault(max(steps, default=0), []).append(member)
        groups = list(by_step.values())
    waves = [
        group[start : start + (size or len(group))]
        for group in groups
        for start in range(0, len(group), size or len(group))
    ]
    return sorted(waves, key=len, reverse=True)


def _is_finished(workdir: Path, steps: int) -> bool:
    last = last_step(workdir)
    if last > steps:
        raise UsageError(f"{workdir} holds {last} steps, more than the {steps} asked for")
    return last == steps


def _writers(config: ConfigDict, workdir: Path, step: int) -> list[Writer]:
    if jax.process_index():
        return []
    writers: list[Writer] = [JsonlWriter(workdir / "metrics.jsonl", step)]
    if config.tensorboard:
        writers.append(tensorboard_writer(workdir))
    return writers


def _describe(workdir: Path, program: Program) -> None:
    """Writes the table of all parameters of a student into its folder."""
    if not jax.process_index():
        overview = parameter_overview.get_parameter_overview(
            program.abstract_state.params, include_stats=False
        )
        write_text(workdir / "parameters.txt", overview + "\n")


def _introduce(
    config: ConfigDict, program: Program, dataset: Dataset, teacher: Trained | None, where: str
) -> None:
    """Says what is about to be trained."""
    params = program.abstract_state.params
    sizes = ", ".join(f"{group} {num_parameters(tree):,}" for group, tree in params.items())
    if teacher:
        sizes += f", teacher {num_parameters(teacher.variables['params']):,}"
    _say(
        f"{program.name}: {config.student.architecture} on {dataset.info.name}, "
        f"{len(program.train):,} images, {program.total_steps:,} steps of {config.batch_size} on "
        f"{program.mesh.size} {jax.default_backend()} device(s); parameters: {sizes} (see parameters.txt); "
        f"objectives: {', '.join(config.objectives)}; {where}"
    )


def _say(text: str) -> None:
    if not jax.process_index():
        print(text, flush=True)
