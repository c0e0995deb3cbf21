"""A whole run: its teacher first, then its students."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from fairkd_jax.distributed import broadcast_from_host0
from fairkd_jax.engine.sharding import make_mesh, replicate
from fairkd_jax.errors import StorageError, UsageError
from fairkd_jax.files import write_text
from fairkd_jax.models import num_parameters
from fairkd_jax.recipe.parse import Recipe, parse_recipe
from fairkd_jax.recipe.population import StudentRecipe
from fairkd_jax.recipe.related import teacher_config
from fairkd_jax.run_log import keep_log, say
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.dataset import describe_data, keep_recorded, open_data
from fairkd_jax.runs.loading import find_last_step, load_teacher
from fairkd_jax.runs.lock import lock_folder
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.status import has_checkpoint
from fairkd_jax.training import build
from fairkd_jax.training.checks import check_data, check_recipe
from fairkd_jax.training.chunks import forget_half_saved, split_into_chunks
from fairkd_jax.training.context import RunContext, find_student_folder
from fairkd_jax.training.growth import describe_jump, find_restarts, list_new_models
from fairkd_jax.training.loop import fit
from fairkd_jax.training.pretrained import read_first_weights, settle_norm_epsilon
from fairkd_jax.training.program import Program
from fairkd_jax.training.programs import check_fits
from fairkd_jax.training.student_log import Diverged
from fairkd_jax.training.teacher import find_class_means
from fairkd_jax.training.writers import Writer, open_writers
from fairkd_jax.user_paths import check_can_store


class MembersDiverged(Diverged):
    """Some members of a population diverged; all other members are complete.

    Attributes:
      complete: The names of the complete members.
    """

    def __init__(self, diverged: Sequence[str], complete: Sequence[str]) -> None:
        """Makes the message from the names of both kinds of members."""
        self.complete = tuple(complete)
        file = RunFolder(Path()).diverged.name
        super().__init__(
            f"{len(diverged)} of {len(diverged) + len(complete)} members diverged: {'; '.join(diverged)}; the"
            f" other members are complete (a member's {file} holds the reason; delete that file to try again)"
        )


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    name: str = "student",
) -> None:
    """Trains the students of a config, and their teacher first where none is given.

    A run that was stopped goes on. A config of a population trains all members in one program. Each member
    has a folder below `members`, which looks like the folder of its single run.

    Args:
      config: A config with every key of the default one.
      workdir: The run's folder; made where it does not exist.
      devices: The devices of the run; all devices by default.
      name: Text in front of the progress lines.

    Raises:
      UsageError: The config, the data or the folder does not allow this run.
      Diverged: A loss or a gradient is not finite.
      MembersDiverged: Some members of a population diverged.
      Stopped: SIGINT or SIGTERM arrived.
    """
    train_recipe(parse_recipe(config), workdir, devices=devices, name=name)


def train_recipe(
    recipe: Recipe,
    workdir: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    name: str = "student",
) -> None:
    """Trains the students of a recipe; see `train`."""
    check_can_store(workdir)
    check_recipe(recipe)
    earlier = [find_student_folder(student, workdir) for student in recipe.students]
    given = Path(recipe.teacher.checkpoint) if recipe.teacher.checkpoint else None
    dataset = open_data(keep_recorded(recipe.data, [*earlier, RunFolder(workdir).teacher], given))
    recipe = settle_norm_epsilon(recipe, dataset.info.class_names, earlier)
    restarts, former = find_restarts(recipe, earlier)
    run = RunContext(workdir, recipe, dataset, describe_data(dataset), devices, name, restarts=restarts)
    run.check_resumable()
    check_data(recipe, dataset, list_new_models(recipe, earlier, run.teacher_folder))
    images = len(dataset.split("train"))
    if jump := describe_jump(
        recipe, restarts, former, recipe.count_steps(images), images / recipe.batch_size
    ):
        _say(f"{name}: {jump}")
    # The first process writes for all processes, and so holds the lock.
    with contextlib.ExitStack() as stack:
        if not jax.process_index():
            stack.enter_context(lock_folder(workdir))
            stack.enter_context(keep_log(RunFolder(workdir).log))
        run = prepare_teacher(run)
        if recipe.is_population:
            _train_population(run)
        else:
            _train_single(run)


def prepare_teacher(run: RunContext) -> RunContext:
    """Returns the run with its teacher, trained first where none is given, and with its class means.

    Raises:
      UsageError: The teacher does not fit the data, or as `train` does.
    """
    recipe = run.recipe
    if not recipe.uses_teacher:
        return run
    folder = run.teacher_folder
    if recipe.trains_teacher:
        train(teacher_config(recipe.config), folder, devices=run.devices, name="teacher")
    mesh = make_mesh(run.devices)
    teacher = load_teacher(folder, run.data_info, mesh)
    if not recipe.uses_class_means:
        return run.with_teacher(teacher, None)
    return run.with_teacher(teacher, find_class_means(folder, teacher, run.dataset, mesh).means)


def _train_single(run: RunContext) -> None:
    """Trains a single student."""
    (student,) = run.recipe.students
    program = build.build_program(run, make_mesh(run.devices))
    run.check_resumable()
    finished = _is_finished(run.workdir, program.total_steps)
    if not finished:
        _introduce(run, program, [run.workdir], f"folder {run.workdir}")
        _compile(program)
    with contextlib.suppress(*([StorageError] if finished else [])):  # a finished run may be read-only
        run.write_configs()
    if finished:
        _say(f"{program.name}: this run is complete, {program.total_steps} steps, in {run.workdir}")
        return
    _write_parameters(run.workdir, program)
    fit(program, [run.find_folder(student)], _make_opener(run.recipe))


def _train_population(run: RunContext) -> None:
    """Trains the members of a population that are not complete, as many at once as are allowed."""
    run.check_resumable()
    recipe = run.recipe
    folders = {student: run.find_folder(student) for student in recipe.students}
    steps = recipe.count_steps(len(run.dataset.split("train")))
    left = [student for student in recipe.students if not _is_finished(folders[student], steps)]
    diverged = [student for student in left if _has_diverged(folders[student])]
    left = [student for student in left if student not in diverged]
    saved = {student: _find_saved_steps(folders[student]) for student in left}
    saved = forget_half_saved(saved, {student for student in left if _has_started(folders[student])})
    chunks = split_into_chunks(saved, recipe.wave_size)
    if not chunks:
        with contextlib.suppress(StorageError):  # the finished runs may be read-only
            run.write_configs()
    done = len(recipe.students) - len(left) - len(diverged)
    _say(
        f"{run.name}: {len(recipe.students)} members, {done} complete, {len(left)} to train in"
        f" {len(chunks)} wave(s)"
    )
    for number, chunk in enumerate(chunks, 1):
        name = f"{run.name} {number}/{len(chunks)}" if len(chunks) > 1 else run.name
        _train_chunk(run, chunk, name, is_first=number == 1)
        diverged += [student for student in chunk if _has_diverged(folders[student])]
    if diverged:
        complete = [student.name for student in recipe.students if student not in diverged]
        raise MembersDiverged([student.name for student in diverged], complete)


def _train_chunk(run: RunContext, chunk: Sequence[StudentRecipe], name: str, *, is_first: bool) -> None:
    """Trains some members of a population in one program."""
    mesh = make_mesh(run.devices, members=len(chunk))
    if run.teacher is not None:
        placed = dataclasses.replace(run.teacher, variables=replicate(run.teacher.variables, mesh))
        run = dataclasses.replace(run, teacher=placed)
    program = build.build_program(run, mesh, name=name, students=chunk)
    folders = [run.find_folder(student) for student in chunk]
    _introduce(run, program, folders, f"{len(chunk)} members below {folders[0].parent}")
    if is_first:  # the largest chunk: if it is refused, no folder stands in the way of another try
        _compile(program)
        run.write_configs()
    for folder in folders:
        _write_parameters(folder, program)
    with contextlib.suppress(Diverged):  # all members of this chunk; the next chunk may do better
        fit(program, folders, _make_opener(run.recipe))


def _has_diverged(workdir: Path) -> bool:
    return broadcast_from_host0(RunFolder(workdir).diverged.exists())


def _find_saved_steps(workdir: Path) -> frozenset[int]:
    """Returns the steps from which a run can go on."""
    if not broadcast_from_host0(RunFolder(workdir).checkpoints.exists()):
        return frozenset()
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
        return frozenset(checkpoints.steps())


def _has_started(workdir: Path) -> bool:
    """Returns whether the program of a member has begun, and has written the table of its arrays."""
    return broadcast_from_host0(RunFolder(workdir).parameters.exists())


def _is_finished(workdir: Path, steps: int) -> bool:
    last = find_last_step(workdir)
    if not broadcast_from_host0(has_checkpoint(workdir)):
        return False
    if last > steps:
        raise UsageError(f"{workdir} holds {last} steps, more than the {steps} asked for")
    return last == steps


def _make_opener(recipe: Recipe) -> Callable[[Path, int], list[Writer]]:
    """Makes the function that opens the writers of a student's folder."""
    return functools.partial(open_writers, tensorboard=recipe.tensorboard, function=recipe.writer)


def _write_parameters(workdir: Path, program: Program) -> None:
    """Writes the table of a student's arrays into its folder."""
    if not jax.process_index():
        overview = parameter_overview.get_parameter_overview(
            program.abstract_state.params, include_stats=False
        )
        write_text(RunFolder(workdir).parameters, overview + "\n")


def _introduce(run: RunContext, program: Program, folders: Sequence[Path], where: str) -> None:
    """Prints the sizes of a training before it starts."""
    params = program.abstract_state.params
    sizes = [f"{num_parameters(params['student']):,} parameters"]
    sizes += [f"{group} {num_parameters(tree):,}" for group, tree in params.items() if group != "student"]
    if run.teacher:
        sizes.append(f"teacher {num_parameters(run.teacher.variables['params']):,}")
    model = run.recipe.model
    if model in list_new_models(run.recipe, folders, run.teacher_folder) and model.pretrained:
        first = read_first_weights(model, run.dataset.info.class_names)
        kept = "keeps its head" if first.keeps_head else "has a new head"
        _say(f"{program.name}: starts from {model.pretrained} and {kept}: {first.reason}")
    epochs = program.total_steps * program.batch_size / len(program.train)
    devices = f"{program.mesh.size} {jax.default_backend()} device{'s' * (program.mesh.size > 1)}"
    for line in (
        f"{model.architecture} on {run.dataset.info.name}, {len(program.train):,} images; {where}",
        f"{program.total_steps:,} steps of {program.batch_size} images, {epochs:.0f} epochs, on {devices}",
        "; ".join(sizes),
        f"objectives {', '.join(run.recipe.objectives)}",
    ):
        _say(f"{program.name}: {line}")


def _compile(program: Program) -> None:
    """Compiles the step, which takes the longest of all before the first step, and checks its memory."""
    _say(f"{program.name}: compiling the step")
    start = time.monotonic()
    check_fits(program)
    _say(f"{program.name}: compiled in {time.monotonic() - start:.0f} s")


def _say(text: str) -> None:
    """Prints a line in the first process."""
    if not jax.process_index():
        say(text)
