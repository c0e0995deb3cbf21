"""What a sweep has to do: its runs, the teachers that they share, and the commands of each."""

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import OBJECTIVES
from fairkd_jax.sweep import grid
from fairkd_jax.sweep.folders import is_trained, scored
from fairkd_jax.sweep.tasks import Job
from fairkd_jax.training import member_folders, resolved, teacher_config, uses_teacher
from fairkd_jax.training.config import TEACHER_KEYS, check, give_teacher
from fairkd_jax.training.members import members_of
from fairkd_jax.training.workdir import FREE_KEYS, plain

TEACHERS = "teachers"
OWN_TEACHER = {f"teacher.{key}" for key in TEACHER_KEYS}
Make = Callable[[Mapping[str, str]], Any]  # the config of the file with these keys changed
Command = tuple[str, ...]  # a program of the repository, and its arguments


@dataclass(frozen=True)
class Run:
    """One `train.py` of a sweep.

    Attributes:
      name: of its folder, below that of the sweep.
      folder: where it goes.
      overrides: by key, what it changes in the config file.
      students: folder and config of the student, or of each of a population.
      needs: the name of the run that trains its teacher; empty where none does.
    """

    name: str
    folder: Path
    overrides: Mapping[str, str]
    students: Sequence[tuple[Path, Any]]
    needs: str = ""

    @property
    def teaches(self) -> bool:
        return self.name.startswith(f"{TEACHERS}/")


def plan(make: Make, axes: Mapping[str, Sequence[str]], fixed: Mapping[str, Any], folder: Path) -> list[Run]:
    """Makes the runs of a grid, the teachers first.

    Points whose teachers would be trained alike get one: it is a run of its own, which waits for nobody, and
    the points find it by `teacher.checkpoint`. Where the grid has a key that a run with such a teacher cannot
    tell of, each point trains its own, as a lone run does.

    Args:
      make: `texts by key -> config`.
      axes: by key, the texts of its values.
      fixed: by key, the values that all points have.
      folder: of the sweep.

    Raises:
      UsageError: a key is unknown, or a point's config is wrong.
    """
    base = make({}).to_dict()
    for key in axes:
        if any(f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in fixed):
            raise UsageError(f"{key} is in --grid and in --config.{key}; leave one of them out")
    always = {key: grid.text_of(value) for key, value in fixed.items()}
    teachers: dict[str, Run] = {}
    found: dict[str, Run] = {}
    for texts in grid.points(axes):
        config = make(always | texts)
        ready = resolved(config)
        values = grid.flat(ready.to_dict())
        if sections := [key for key in axes if key not in values]:
            raise UsageError(f"--grid {sections[0]} is a section; name a key of it")
        name = grid.name_of({key: values[key] for key in axes})
        if name in found:
            raise UsageError(f"--grid: two points are {name}; name each value once")
        _check(name, ready)
        needs = ""
        if uses_teacher(ready) and not ready.teacher.checkpoint and not OWN_TEACHER & axes.keys():
            teacher = _teacher(base, config, folder, set(axes))
            teachers.setdefault(teacher.name, teacher)
            needs = teacher.name
            give_teacher(config, teacher.folder)
        changes = grid.overrides(base, config.to_dict(), keep=list(axes))
        found[name] = _run(name, folder / name, changes, config, needs)
    return [*teachers.values(), *found.values()]


def _check(name: str, config: Any) -> None:
    try:
        check(config)
        members_of(config)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def _teacher(base: Mapping[str, Any], config: Any, folder: Path, axes: set[str]) -> Run:
    """The run that trains the teacher of a point."""
    own = teacher_config(config)
    ready = resolved(own)
    unused = set(OBJECTIVES) - set(ready.objectives)
    free = set(FREE_KEYS) - axes
    deciding = {
        key: value
        for key, value in grid.flat(plain(ready)).items()
        if key.partition(".")[0] not in unused and key not in free
    }
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{TEACHERS}/{ready.student.architecture}-seed{ready.seed}-{digest}"
    wanted = {key: value for key, value in own.to_dict().items() if key not in unused}
    return _run(name, folder / name, grid.overrides(base, wanted), own, "")


def _run(name: str, folder: Path, changes: Mapping[str, str], config: Any, needs: str) -> Run:
    ready = resolved(config)
    members, folders = members_of(ready), member_folders(ready, folder)
    students = [(folders[member], own) for member, own in members.items()] if folders else [(folder, ready)]
    return Run(name, folder, changes, students, needs)


def commands_of(run: Run, config_file: str, *, validate: bool, probe: bool) -> list[Command]:
    """What is still to be done for a run; nothing where it is complete.

    Args:
      run: the run.
      config_file: the file[:preset] of the sweep.
      validate: whether its students are to be scored on the validation split too.
      probe: whether they are to be probed.

    Raises:
      UsageError: its folder holds another run, or is damaged.
    """
    commands: list[Command] = []
    trained = {folder: is_trained(folder, config) for folder, config in run.students}
    if not all(trained.values()):
        changes = [f"--config.{key}={text}" for key, text in run.overrides.items()]
        commands.append(("train.py", f"--config={config_file}", *changes, f"--workdir={run.folder}"))
    if run.teaches:
        return commands
    for folder, _ in run.students:
        step = scored(folder, "test")
        if probe and not (trained[folder] and scored(folder, "test", probed=True)):
            commands.append(("eval.py", f"--workdir={folder}", "--probe"))
        if validate and not (trained[folder] and scored(folder, "val") == step):
            commands.append(("eval.py", f"--workdir={folder}", "--split=val"))
    return commands


def job_of(run: Run, commands: Sequence[Command], root: Path, environment: Mapping[str, str]) -> Job | None:
    """What is sent to a machine; None where nothing is left to be done."""
    if not commands:
        return None
    own = tuple(
        # Slurm, or a TPU pod, whose variables a worker has, would make one run of those of a sweep.
        (*command, "--nodistributed") if command[0] == "train.py" else command
        for command in commands
    )
    place, several = os.getcwd(), len(run.students) > 1
    return Job(run.name, str(run.folder), own, str(root), place, dict(environment), goes_on=several)


def dry_run(
    runs: Sequence[Run], commands_of: Callable[[Run], list[Command]], root: Path
) -> tuple[list[str], str]:
    """What is left to be done as lines for a shell, one for each run, and what to know of their order."""
    left = {run.name: (run, found) for run in runs if (found := commands_of(run))}
    needed = {run.needs for run, _ in left.values()}
    teachers = [name for name in left if left[name][0].teaches and name in needed]
    names = [*teachers, *(name for name in left if not left[name][0].teaches)]
    place = os.path.relpath(root)
    lines = [
        " && ".join(
            shlex.join(["python", os.path.normpath(os.path.join(place, program)), *arguments])
            for program, *arguments in left[name][1]
        )
        for name in names
    ]
    complete = sum(not run.teaches for run in runs) - len(names) + len(teachers)
    if not lines:
        return [], f"all {complete} runs are complete"
    advice = f"{grid.several(len(lines), 'command')}, and {grid.several(complete, 'run')} complete before"
    if teachers:
        first = grid.several(len(teachers), "line")
        advice += f"; the first {first} (teachers) must have ended well before the others start"
    return lines, advice
