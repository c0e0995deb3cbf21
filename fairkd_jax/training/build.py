"""Builds the compiled programs of a run from its recipe, its data and its teacher."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.data.augment import augment
from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.data.split import CACHE_MODES
from fairkd_jax.distributed import max_over_hosts
from fairkd_jax.engine.eval_step import make_eval_step
from fairkd_jax.engine.optimizers import make_optimizers, make_run_schedule
from fairkd_jax.engine.sharding import make_abstract_arrays, make_replicated_sharding, replicate
from fairkd_jax.engine.state import TrainState
from fairkd_jax.engine.train_step import init_state, make_train_step
from fairkd_jax.engine.updates import STUDENT
from fairkd_jax.models import Classifier
from fairkd_jax.recipe.parse import Recipe
from fairkd_jax.recipe.population import StudentRecipe
from fairkd_jax.recipe.sections import ModelRecipe
from fairkd_jax.runs.loading import LoadedModel
from fairkd_jax.training.checks import check_batch, make_task_info
from fairkd_jax.training.context import RunContext
from fairkd_jax.training.pretrained import read_first_weights
from fairkd_jax.training.program import Program
from fairkd_jax.training.programs import StepFunctions, population_program, single_program
from fairkd_jax.types import Tree


def build_program(
    run: RunContext,
    mesh: jax.sharding.Mesh,
    *,
    name: str = "",
    students: Sequence[StudentRecipe] = (),
) -> Program:
    """Builds everything that a training runs; the compilation happens at the first call.

    Args:
      run: The run, with its teacher where an objective uses one.
      mesh: The devices.
      name: Text in front of the progress lines; the run's name by default.
      students: The students that train together; all students of the run by default.

    Raises:
      UsageError: The recipe does not fit the devices or the data.
    """
    recipe, dataset, students = run.recipe, run.dataset, students or run.recipe.students
    train, validation = dataset.split("train"), dataset.split("val")
    # Each process has found out on its own which cache fits its memory. All processes must run the same
    # program.
    train.cache = CACHE_MODES[max_over_hosts(CACHE_MODES.index(train.cache))]
    check_batch(recipe, train, mesh)
    steps_per_epoch = len(train) / recipe.batch_size
    steps = recipe.count_steps(len(train))
    schedule = make_run_schedule(recipe.optimizer, steps, steps_per_epoch, run.restarts)
    functions, init, teacher_variables = _make_functions(run, mesh, schedule, steps, steps_per_epoch)
    # All rates at once: a report must not send work to the device.
    rates = np.asarray(jax.vmap(schedule)(jnp.arange(steps)))
    parts, factors = _make_parts(recipe, students, functions)
    abstract_state = jax.eval_shape(functools.partial(init, seed=students[0].seed))
    return Program(
        name=name or run.name,
        mesh=mesh,
        images_on_device=train.cache == "device",
        abstract_state=make_abstract_arrays(mesh, abstract_state),
        teacher_variables=teacher_variables,
        train=train,
        validation=validation,
        batch_size=recipe.batch_size,
        balanced=recipe.data.balance_groups,
        data_seed=recipe.data.seed,
        total_steps=steps,
        log_every=recipe.log_every_steps,
        validate_every=max(1.0, recipe.eval_every_epochs * steps_per_epoch),
        checkpoint_every=recipe.checkpoint_every_steps,
        keep=recipe.checkpoints.keep,
        is_kept=functools.partial(_is_kept, every=recipe.checkpoints.keep_every_epochs * steps_per_epoch),
        max_disparity=recipe.max_disparity,
        learning_rates=factors[:, None] * rates[None],
        **parts,
    )


def _is_kept(step: int, *, every: float) -> bool:
    """Returns whether the checkpoint of a step is kept for good, one in `every` steps; never for 0."""
    return step >= every > 0 and step % max(1.0, every) < 1


def _make_functions(
    run: RunContext, mesh: jax.sharding.Mesh, schedule: Any, steps: int, steps_per_epoch: float
) -> tuple[StepFunctions, Callable[..., TrainState], Tree]:
    """Makes the functions of one student, the function of its first state, and the teacher's variables."""
    recipe, dataset, teacher = run.recipe, run.dataset, run.teacher
    student = recipe.model.create(len(dataset.info.class_names), len(dataset.info.group_names))
    common: dict[str, Any] = {
        "student": student,
        "objectives": recipe.objectives,
        "optimizers": make_optimizers(
            recipe.optimizer,
            recipe.finetune,
            recipe.objectives,
            schedule,
            steps_per_epoch,
            head=student.head_name,
        ),
    }
    info = make_task_info(
        dataset,
        student_width=student.embedding_width,
        teacher_width=teacher.module.embedding_width if teacher else 0,
        class_means=run.class_means,
        balanced=recipe.data.balance_groups,
    )
    image_size, ema_decay = recipe.data.image_size, recipe.optimizer.ema_decay
    init = functools.partial(init_state, **common, info=info, image_size=image_size, with_ema=ema_decay > 0)
    frozen, frozen_variables = _freeze_teacher(teacher, mesh)
    step = make_train_step(
        **common,
        teacher=frozen,
        **_make_augmentations(recipe, teacher),
        num_groups=info.num_groups,
        data_seed=recipe.data.seed,
        total_steps=steps,
        steps_per_epoch=steps_per_epoch,
        ema_decay=ema_decay,
    )
    eval_step = make_eval_step(student, image_size=image_size, num_groups=info.num_groups)
    compiled_init = jax.jit(init, out_shardings=make_replicated_sharding(mesh))
    start = _make_start(compiled_init, recipe.model, student.head_name, dataset, mesh)
    return StepFunctions(step, eval_step, start, dataset.split("train"), mesh), init, frozen_variables


def _make_parts(
    recipe: Recipe, students: Sequence[StudentRecipe], functions: StepFunctions
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the program parts for one student or a population, and each student's learning-rate factor."""
    if not recipe.is_population:
        return single_program(functions, students[0].seed, students[0].weights), np.ones(1)
    rates = np.array([student.learning_rate for student in students])
    factors = rates / recipe.optimizer.learning_rate
    weights = {
        name: np.array([student.weights[name] for student in students], np.float32)
        for name in recipe.objectives
    }
    seeds = [student.seed for student in students]
    return population_program(functions, seeds, weights, factors.astype(np.float32)), factors


def _make_augmentations(recipe: Recipe, teacher: LoadedModel | None) -> dict[str, Any]:
    """Makes the views of a stored image; the teacher has its own view only at another size."""
    make_view = functools.partial(augment, augmentation=recipe.augmentation)
    views = {"augment": functools.partial(make_view, size=recipe.data.image_size)}
    if teacher and teacher.image_size != recipe.data.image_size:
        views["augment_for_teacher"] = functools.partial(make_view, size=teacher.image_size)
    return views


def _freeze_teacher(teacher: LoadedModel | None, mesh: jax.sharding.Mesh) -> tuple[Classifier | None, Tree]:
    """Folds the teacher's statistics into its kernels, its fastest form; returns module and variables."""
    if teacher is None:
        return None, {}
    fold = jax.jit(teacher.module.fold_variables, out_shardings=make_replicated_sharding(mesh))
    return teacher.module.inference_form(), fold(teacher.variables)


def _make_start(
    init: Callable[..., TrainState],
    model: ModelRecipe,
    head: str,
    dataset: Dataset,
    mesh: jax.sharding.Mesh,
) -> Callable[[int], TrainState]:
    """Makes the function of a seed's first state, with pretrained weights and a new head where asked for."""

    def start_fresh(seed: int) -> TrainState:
        return init(seed=np.uint32(seed))

    if not model.pretrained:
        return start_fresh

    def start_pretrained(seed: int) -> TrainState:
        state = start_fresh(seed)
        first = read_first_weights(model, dataset.info.class_names)
        variables = first.pretrained.variables
        params = variables["params"]
        if not first.keeps_head:
            params = params | {head: state.params[STUDENT][head]}
        student = replicate({"params": params, "batch_stats": variables["batch_stats"]}, mesh)
        return dataclasses.replace(
            state,
            params=state.params | {STUDENT: student["params"]},
            batch_stats=student["batch_stats"],
            # Donated buffers must not be shared with the parameters.
            ema=jax.tree.map(jnp.copy, student) if state.ema else {},
        )

    return start_pretrained
