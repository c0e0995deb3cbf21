"""Plans the runs of a sweep: the points of a grid, the teachers that points share, and their commands."""

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.keys import TEACHER_KEYS
from fairkd_jax.recipe.parse import Recipe, parse_recipe
from fairkd_jax.recipe.related import teacher_config, use_teacher
from fairkd_jax.recipe.values import normalize
from fairkd_jax.runs.folder import (
    FREE_KEYS,
    SWEEP_TEACHERS,
    find_teacher,
    flatten,
    to_json_dict,
    without_unused,
)
from fairkd_jax.runs.status import find_scored_step, is_trained
from fairkd_jax.runs.versions import ADDED_KEYS
from fairkd_jax.sweep import grid
from fairkd_jax.sweep.worker import Job
from fairkd_jax.training.checks import check_recipe
from fairkd_jax.training.context import find_student_folder
from fairkd_jax.training.preflight import Preflight

# Keys for a run that trains its own teacher; `teacher.checkpoint` takes the place of these keys.
OWN_TEACHER = {f"teacher.{key}" for key in TEACHER_KEYS}
MakeConfig = Callable[[Mapping[str, str]], Any]  # overrides by key -> config of the file with these overrides
Command = tuple[str, ...]  # name of a command of the package, and its arguments
_MODULE = ("-m", "fairkd_jax")  # arguments of Python in front of a command
TRAIN, EVALUATE = "train", "eval"  # such names


@dataclass(frozen=True)
class PlannedRun:
    """One training of a sweep.

    Attributes:
      name: Name of the run's folder, relative to the folder of the sweep.
      folder: Folder of the run.
      overrides: Text of the value by key, for each key that differs from the config file.
      students: Folder and config of the student, or of each student of a population.
      teacher_name: Name of the run that trains the teacher; empty where no other run trains the teacher.
    """

    name: str
    folder: Path
    overrides: Mapping[str, str]
    students: Sequence[tuple[Path, Any]]
    teacher_name: str = ""

    @property
    def is_teacher(self) -> bool:
        """Whether the run trains a teacher that points share."""
        return self.name.startswith(f"{SWEEP_TEACHERS}/")


def plan_runs(
    make_config: MakeConfig,
    axes: Mapping[str, Sequence[str]],
    fixed: Mapping[str, Any],
    folder: Path,
    *,
    with_data: bool,
) -> list[PlannedRun]:
    """Plans the runs of a grid, teachers first.

    Points that would train equal teachers share a single teacher. The teacher is a separate run that waits
    for no other run, and the points find the teacher by `teacher.checkpoint`. Where the grid has a key in
    OWN_TEACHER, each point trains its own teacher, as a single run does. The reason is that a run with
    `teacher.checkpoint` has no value for such a key.

    Args:
      make_config: Function from overrides by key to the config.
      axes: Texts of the values by key of the grid.
      fixed: Value by key, for each key that --config.KEY=VALUE sets for all points.
      folder: Folder of the sweep.
      with_data: Whether to check the data and the pretrained files too, which must then be on this machine.

    Returns:
      Runs of the teachers, then runs of the points.

    Raises:
      UsageError: A key is unknown, or a point's config is wrong.
    """
    base = make_config({}).to_dict()
    for key in axes:
        if any(f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in fixed):
            raise UsageError(f"{key} is in --grid and in --config.{key}; leave out one of the two")
    fixed_texts = {key: grid.format_value(value) for key, value in fixed.items()}
    teachers: dict[str, PlannedRun] = {}
    runs: dict[str, PlannedRun] = {}
    preflight = Preflight() if with_data else None
    for texts in grid.list_points(axes):
        config = make_config(fixed_texts | texts)
        values = flatten(normalize(config).to_dict())
        if sections := [key for key in axes if key not in values]:
            raise UsageError(f"--grid {sections[0]} is a section; name a key of the section")
        name = grid.make_point_name({key: values[key] for key in axes})
        if name in runs:
            raise UsageError(f"--grid: two points are {name}; name each value once")
        recipe = _parse_point(name, config, folder / name, preflight)
        teacher_name = ""
        if recipe.trains_teacher and not OWN_TEACHER & axes.keys():
            teacher = _plan_teacher(base, config, folder, set(axes))
            teachers.setdefault(teacher.name, teacher)
            teacher_name = teacher.name
            config = use_teacher(config, teacher.folder)
        changes = grid.find_overrides(base, config.to_dict(), keep=list(axes))
        runs[name] = _make_run(name, folder / name, changes, config, teacher_name)
    return [*teachers.values(), *runs.values()]


def _parse_point(name: str, config: Any, folder: Path, preflight: Preflight | None) -> Recipe:
    """Reads the config of a point and checks as much as can be; an error names the point."""
    try:
        recipe = parse_recipe(config)
        check_recipe(recipe)
        if preflight:
            students = [find_student_folder(student, folder) for student in recipe.students]
            preflight.check(recipe, students, find_teacher(recipe.teacher.checkpoint, folder))
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    return recipe


def _plan_teacher(base: Mapping[str, Any], config: Any, folder: Path, axes: set[str]) -> PlannedRun:
    """Plans the run that trains a point's teacher.

    The name ends in a hash of all keys that influence the teacher, so that equal teachers get equal names.

    Args:
      base: Nested dict with all keys of the config file.
      config: Config of the point.
      folder: Folder of the sweep.
      axes: Keys of the grid.
    """
    own = teacher_config(config)
    ready = normalize(own)
    used, free = set(ready.objectives), set(FREE_KEYS) - axes
    relevant = {
        key: value
        for key, value in flatten(without_unused(to_json_dict(ready), used)).items()
        if key not in free and not (key in ADDED_KEYS and ADDED_KEYS[key] == value)
    }
    # A sweep that began under the earlier name of this rule must find its teachers again.
    if relevant.get("data.wider_attribute.split_rule") == "half_test":
        relevant["data.wider_attribute.split_rule"] = "capstone"
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{SWEEP_TEACHERS}/{ready.student.architecture}-seed{ready.seed}-{digest}"
    wanted = without_unused(own.to_dict(), used)
    return _make_run(name, folder / name, grid.find_overrides(base, wanted), own, "")


def _make_run(
    name: str, folder: Path, overrides: Mapping[str, str], config: Any, teacher_name: str
) -> PlannedRun:
    """Makes the plan of a run with the folder and the config of each student."""
    students = [
        (find_student_folder(student, folder), to_json_dict(student.config))
        for student in parse_recipe(config).students
    ]
    return PlannedRun(name, folder, overrides, students, teacher_name)


def list_commands(run: PlannedRun, config_file: str, *, validate: bool, probe: bool) -> list[Command]:
    """Lists the commands that a run still needs.

    Args:
      run: Planned run.
      config_file: Config of the sweep, as NAME[:WORD,...] or FILE.py[:WORD,...].
      validate: Whether to evaluate the students on the validation split too.
      probe: Whether to probe the students.

    Returns:
      Commands in their order; empty where the run is complete.

    Raises:
      UsageError: The folder holds another run, or is damaged.
    """
    commands: list[Command] = []
    trained = {folder: is_trained(folder, config) for folder, config in run.students}
    if not all(trained.values()):
        changes = [f"--config.{key}={text}" for key, text in run.overrides.items()]
        commands.append((TRAIN, f"--config={config_file}", *changes, f"--workdir={run.folder}"))
    if run.is_teacher:
        return commands
    for folder, _ in run.students:
        step = find_scored_step(folder, "test")
        if probe and not (trained[folder] and find_scored_step(folder, "test", probed=True)):
            commands.append((EVALUATE, f"--workdir={folder}", "--probe"))
        if validate and not (trained[folder] and find_scored_step(folder, "val") == step):
            commands.append((EVALUATE, f"--workdir={folder}", "--split=val"))
    return commands


def make_job(run: PlannedRun, commands: Sequence[Command], environment: Mapping[str, str]) -> Job | None:
    """Makes the job that a worker receives.

    Args:
      run: Planned run.
      commands: Commands that the run still needs.
      environment: Variables that the commands get in addition to the variables of the machine.

    Returns:
      Job; None where no command is needed.
    """
    if not commands:
        return None
    own = tuple(
        # Variables of Slurm or of a TPU pod on a worker would join all runs of the sweep into a single run.
        (*_MODULE, *command, *(["--nodistributed"] if command[0] == TRAIN else []))
        for command in commands
    )
    return Job(
        run.name,
        str(run.folder),
        own,
        os.getcwd(),
        dict(environment),
        continue_on_failure=len(run.students) > 1,
    )


def format_dry_run(
    runs: Sequence[PlannedRun], list_commands: Callable[[PlannedRun], list[Command]]
) -> tuple[list[str], str]:
    """Formats the commands of a sweep for a shell.

    Args:
      runs: All runs of the sweep.
      list_commands: Function from a run to the commands that the run still needs.

    Returns:
      One line for each run that is not complete, teachers first; and advice on the order of the lines.
    """
    unfinished = {run.name: (run, commands) for run in runs if (commands := list_commands(run))}
    needed = {run.teacher_name for run, _ in unfinished.values()}
    teachers = [name for name, (run, _) in unfinished.items() if run.is_teacher and name in needed]
    names = [*teachers, *(name for name, (run, _) in unfinished.items() if not run.is_teacher)]
    lines = [
        " && ".join(shlex.join(["python", *_MODULE, *command]) for command in unfinished[name][1])
        for name in names
    ]
    complete = sum(not run.is_teacher for run in runs) - len(names) + len(teachers)
    if not lines:
        return [], f"all {complete} runs are complete"
    advice = (
        f"{grid.format_count(len(lines), 'command')}; {grid.format_count(complete, 'run')} already complete"
    )
    if teachers:
        first = "line (a teacher) has" if len(teachers) == 1 else f"{len(teachers)} lines (teachers) have"
        advice += f"; start the other lines only after the first {first} succeeded"
    return lines, advice
