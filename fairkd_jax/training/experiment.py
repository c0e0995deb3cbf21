"""Turns a config into what runs: data, models and the compiled programs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fairkd_jax.data.augment import augment
from fairkd_jax.data.pipeline import Dataset, Split, default_directory, open_dataset
from fairkd_jax.data.split import CACHE_MODES
from fairkd_jax.errors import UsageError
from fairkd_jax.models import EfficientNet, fold, read_pretrained
from fairkd_jax.training.cluster import largest
from fairkd_jax.training.compiled import Parts, lone, population
from fairkd_jax.training.config import (
    make_augmentation,
    make_model,
    make_objectives,
    make_optimizers,
    make_run_schedule,
    total_steps,
    with_tuples,
)
from fairkd_jax.training.evaluation import make_eval_step
from fairkd_jax.training.loop import Program
from fairkd_jax.training.sharding import (
    check_divides,
    replicate,
    replicated,
    shapes_on,
)
from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import STUDENT, init_state, make_train_step
from fairkd_jax.training.task import spec_of
from fairkd_jax.training.trained import Trained
from fairkd_jax.types import Tree


def open_data(config: ConfigDict) -> Dataset:
    """The prepared data set; it is prepared first where that was not done yet."""
    data = config.data
    options = data.get(data.name, ConfigDict())
    return open_dataset(
        data.name,
        directory=data.directory or default_directory(),
        source=data.source,
        size=data.size,
        resize=data.resize,
        quality=data.quality,
        cache=data.cache,
        control=data.control,
        control_seed=data.seed,
        max_bad_fraction=data.max_bad_fraction,
        **with_tuples(dict(options)),
    )


def split_counts(config: ConfigDict, split: str) -> tuple[str, np.ndarray]:
    """A data set's name, and how many images of each known group and class a split has: int [G, C].

    Raises:
      UsageError: it has none.
    """
    config = config.copy_and_resolve_references()
    config.data.cache = "none"
    dataset = open_data(config)
    if split not in dataset.info.num_examples:
        raise UsageError(f"{dataset.info.name} has no images in {split}")
    return dataset.info.name, np.asarray(dataset.split(split).counts)


def build(
    config: ConfigDict,
    dataset: Dataset,
    teacher: Trained | None,
    mesh: jax.sharding.Mesh,
    name: str,
    class_means: np.ndarray | None = None,
    members: Sequence[ConfigDict] = (),
) -> Program:
    """Makes everything that a training runs, compiled lazily.

    Args:
      config: the run's config.
      dataset: its data.
      teacher: the frozen teacher; None where no objective uses one.
      mesh: the devices.
      name: what stands in front of the progress lines.
      class_means: float [C, E], of the teacher; None where no objective uses them.
      members: of a population, the configs of its lone runs, which differ in seed, weights and learning rate
        alone; none for a lone run.

    Raises:
      UsageError: the config does not fit the devices or the data.
    """
    train, validation = dataset.split("train"), dataset.split("val")
    # Each process has found out for itself what fits its memory: all must run the same program.
    train.cache = CACHE_MODES[largest(CACHE_MODES.index(train.cache))]
    _check_fits(config, train, mesh)
    image_size = config.data.image_size
    student = make_model(config.student, len(dataset.info.class_names), len(dataset.info.group_names))
    steps_per_epoch = len(train) / config.batch_size
    steps = total_steps(config, len(train))
    schedule = make_run_schedule(config, steps, steps_per_epoch)
    common: Any = {
        "student": student,
        "objectives": make_objectives(config),
        "optimizers": make_optimizers(config, schedule, steps_per_epoch),
    }
    spec = spec_of(
        dataset,
        student_width=student.architecture.head,
        teacher_width=teacher.module.architecture.head if teacher else 0,
        class_means=class_means,
        balanced=config.data.balance_groups,
    )
    init = functools.partial(
        init_state,
        **common,
        spec=spec,
        image_size=image_size,
        with_ema=config.optimizer.ema_decay > 0,
    )
    frozen, frozen_variables = _frozen(teacher, mesh)
    step = make_train_step(
        **common,
        teacher=frozen,
        **_views(config, teacher),
        num_groups=spec.num_groups,
        data_seed=config.data.seed,
        total_steps=steps,
        steps_per_epoch=steps_per_epoch,
        ema_decay=config.optimizer.ema_decay,
    )
    eval_step = make_eval_step(student, image_size=image_size, num_groups=spec.num_groups)
    start = _starting(jax.jit(init, out_shardings=replicated(mesh)), config, dataset, mesh)
    parts = Parts(step, eval_step, start, train, mesh)
    # All at once: a report must not send work to the device.
    rates = np.asarray(jax.vmap(schedule)(jnp.arange(steps)))
    counted, factors = _counted(config, members, parts)
    return Program(
        name=name,
        mesh=mesh,
        images_on_device=train.cache == "device",
        abstract_state=shapes_on(mesh, jax.eval_shape(functools.partial(init, seed=config.seed))),
        teacher_variables=frozen_variables,
        train=train,
        validation=validation,
        batch_size=config.batch_size,
        balanced=config.data.balance_groups,
        data_seed=config.data.seed,
        total_steps=steps,
        log_every=config.log_every_steps,
        validate_every=max(1.0, config.eval_every_epochs * steps_per_epoch),
        checkpoint_every=config.checkpoint_every_steps,
        max_disparity=config.best.max_disparity,
        learning_rates=factors[:, None] * rates[None],
        **counted,
    )


def _counted(
    config: ConfigDict, members: Sequence[ConfigDict], parts: Parts
) -> tuple[dict[str, Any], np.ndarray]:
    """What a program has to do with the number of students; and of each the factor in the learning rate."""
    names = config.objectives
    if not members:
        return lone(parts, config.seed, {name: config[name].weight for name in names}), np.ones(1)
    own_rates = np.array([own.optimizer.learning_rate for own in members])
    factors = own_rates / config.optimizer.learning_rate
    weights = {name: np.array([own[name].weight for own in members], np.float32) for name in names}
    seeds = [own.seed for own in members]
    return population(parts, seeds, weights, factors.astype(np.float32)), factors


def _check_fits(config: ConfigDict, train: Split, mesh: jax.sharding.Mesh) -> None:
    """Raises UsageError where the batch does not fit the devices or the data."""
    check_divides("batch_size", config.batch_size, mesh)
    if config.batch_size > len(train):
        raise UsageError(f"batch_size={config.batch_size} is more than the {len(train)} training images")


def _views(config: ConfigDict, teacher: Trained | None) -> dict[str, Any]:
    """How student and teacher see a stored image; the teacher's own view only where its size is another."""
    augmented = functools.partial(augment, augmentation=make_augmentation(config))
    views = {"augment": functools.partial(augmented, size=config.data.image_size)}
    if teacher and teacher.image_size != config.data.image_size:
        views["augment_for_teacher"] = functools.partial(augmented, size=teacher.image_size)
    return views


def _frozen(teacher: Trained | None, mesh: jax.sharding.Mesh) -> tuple[EfficientNet | None, Tree]:
    """The teacher as it is fastest, its statistics folded into its kernels, and its variables."""
    if teacher is None:
        return None, {}
    folded = jax.jit(lambda variables: fold(teacher.module, variables)[1], out_shardings=replicated(mesh))
    return teacher.module.clone(folded=True), folded(teacher.variables)


def _starting(
    init: Callable[..., TrainState], config: ConfigDict, dataset: Dataset, mesh: jax.sharding.Mesh
) -> Callable[[int], TrainState]:
    """Makes the first state of a seed, with pretrained weights where there are some, but its own new head."""

    def fresh(seed: int) -> TrainState:
        return init(seed=np.uint32(seed))

    if not config.student.pretrained:
        return fresh

    def start(seed: int) -> TrainState:
        state = fresh(seed)
        variables, new_head = read_pretrained(
            config.student.architecture,
            config.student.pretrained,
            num_classes=len(dataset.info.class_names),
        )
        params = variables["params"]
        if new_head or config.student.group_heads:
            params = params | {"classifier": state.params[STUDENT]["classifier"]}
        student = replicate({"params": params, "batch_stats": variables["batch_stats"]}, mesh)
        return dataclasses.replace(
            state,
            params=state.params | {STUDENT: student["params"]},
            batch_stats=student["batch_stats"],
            # A copy: buffers that the average shared with the parameters could not be donated.
            ema=jax.tree.map(jnp.copy, student) if state.ema else {},
        )

    return start
