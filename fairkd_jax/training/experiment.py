"""Turns a config into objects: the only module of the package that reads one."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fairkd_jax.data.augment import Augmentation, augment
from fairkd_jax.data.pipeline import Dataset, default_directory, open_dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model
from fairkd_jax.objectives import Objective, Spec, create_objective
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.evaluation import compile_eval_step, make_eval_step
from fairkd_jax.training.loop import Program
from fairkd_jax.training.optimizer import make_optimizer, make_schedule
from fairkd_jax.training.sharding import check_divides, over_batch, replicate, replicated
from fairkd_jax.training.step import STUDENT, init_state, make_train_step
from fairkd_jax.types import Outputs, Tree

NAME_KEYS = ("class_names", "group_names")
MODEL_KEYS = ("architecture", "dtype", "dropout_rate", "stochastic_depth_rate")


@dataclass(frozen=True)
class Trained:
    """A finished run's student, ready to be used.

    Attributes:
      module: the model.
      variables: its parameters and statistics, on the mesh.
      architecture: its name.
      step: the step it was saved at.
    """

    module: nn.Module
    variables: Tree
    architecture: str
    step: int


def teacher_config(config: ConfigDict) -> ConfigDict:
    """The config of the run that trains this config's teacher."""
    config = config.copy_and_resolve_references()
    for key in MODEL_KEYS:
        config.student[key] = config.teacher[key]
    config.objectives = ("cross_entropy",)
    config.cross_entropy.weight = 1.0
    config.epochs = config.teacher.epochs
    config.optimizer.learning_rate = config.teacher.learning_rate
    config.best.max_disparity = None
    return config


def baseline_config(config: ConfigDict, teacher: Path | None) -> ConfigDict:
    """The config of the same run without debiasing, from the same teacher.

    Raises:
      UsageError: nothing debiases in this config.
    """
    if "adversary" not in config.objectives:
        raise UsageError("--baseline compares with the run without its adversary, and this one has none")
    config = config.copy_and_resolve_references()
    config.adversary.weight = 0.0
    if teacher is not None:
        config.teacher.checkpoint = str(teacher.absolute())
    return config


def make_objectives(config: ConfigDict) -> dict[str, Objective]:
    """The objectives that the config names, with their options."""
    if not config.objectives:
        raise UsageError("objectives is empty; name at least cross_entropy")
    if len(set(config.objectives)) < len(config.objectives):
        raise UsageError(f"objectives={','.join(config.objectives)} names one twice")
    objectives = {}
    for name in config.objectives:
        options = dict(config[name]) if name in config else {}
        for key in ("weight", "learning_rate"):
            options.pop(key, None)
        objectives[name] = create_objective(name, **_tuples(options))
    if all(objective.adversarial for objective in objectives.values()):
        raise UsageError("an adversary alone teaches nothing; add cross_entropy to objectives")
    return objectives


def uses_teacher(config: ConfigDict) -> bool:
    """Whether a run of this config distils."""
    return any(objective.uses_teacher for objective in make_objectives(config).values())


def resolved(config: ConfigDict) -> ConfigDict:
    """A copy in which `--config.objectives=a,b`, which arrives as one name, is two."""
    config = config.copy_and_resolve_references()
    for section, key in ((config, "objectives"), *((config.data.manifest, k) for k in NAME_KEYS)):
        names = tuple(section[key])
        section[key] = tuple(names[0].split(",")) if len(names) == 1 else names
    return config


def check(config: ConfigDict) -> None:
    """Finds what can be found wrong with a config before any data is read.

    Raises:
      UsageError: one line that names the key.
    """
    make_objectives(config)
    for key in ("batch_size", "epochs", "log_every_steps", "checkpoint_every_steps"):
        if config[key] < 1:
            raise UsageError(f"{key}={config[key]} must be at least 1")
    for name in config.objectives:
        if not config[name].weight >= 0:
            raise UsageError(f"{name}.weight={config[name].weight} must not be negative")
    if not config.eval_every_epochs > 0:
        raise UsageError(f"eval_every_epochs={config.eval_every_epochs} must be above 0")
    for model in (config.student, config.teacher):
        make_model(model, num_classes=2)


def make_model(section: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The model of a `student` or `teacher` section."""
    if section["dtype"] not in ("float32", "bfloat16"):
        raise UsageError(f"dtype={section['dtype']!r} is unknown; use float32 or bfloat16")
    return create_model(
        section["architecture"],
        num_classes=num_classes,
        dtype=jnp.dtype(section["dtype"]),
        dropout_rate=section["dropout_rate"],
        stochastic_depth_rate=section["stochastic_depth_rate"],
    )


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
        cache=data.cache,
        max_bad_fraction=data.max_bad_fraction,
        **_tuples(dict(options)),
    )


def task_of(dataset: Dataset) -> dict[str, Any]:
    """What a later reader of a run has to know about its data."""
    info = dataset.info
    return {
        "dataset": info.name,
        "class_names": list(info.class_names),
        "group_names": list(info.group_names),
        "num_examples": dict(info.num_examples),
    }


def load_trained(
    workdir: Path, config: ConfigDict, task: Mapping[str, Any], *, which: str, mesh: jax.sharding.Mesh
) -> Trained:
    """Reads the student of a run.

    Args:
      workdir: the run's folder.
      config: its config.
      task: its task, as `task_of` tells it.
      which: "best", "last" or a step's number.
      mesh: where to put it.
    """
    module = make_model(config.student, len(task["class_names"]))
    size = config.data.image_size
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    target = _on(mesh, {"params": variables["params"], "batch_stats": variables["batch_stats"]})
    checkpoints = Checkpoints(workdir)
    step, restored = checkpoints.restore_student(which, target)
    checkpoints.close()
    return Trained(module, restored, config.student.architecture, step)


def build(
    config: ConfigDict, dataset: Dataset, teacher: Trained | None, mesh: jax.sharding.Mesh, name: str
) -> Program:
    """Makes everything that a training runs, compiled lazily.

    Args:
      config: the run's config.
      dataset: its data.
      teacher: the frozen teacher; None where no objective uses one.
      mesh: the devices.
      name: what stands in front of the progress lines.

    Raises:
      UsageError: the config does not fit the devices or the data.
    """
    check_divides("batch_size", config.batch_size, mesh)
    train, image_size = dataset.split("train"), config.data.image_size
    if config.batch_size > len(train):
        raise UsageError(f"batch_size={config.batch_size} is more than the {len(train)} training images")
    student = make_model(config.student, len(dataset.info.class_names))
    objectives = make_objectives(config)
    steps_per_epoch = len(train) / config.batch_size
    total_steps = max(1, round(config.epochs * steps_per_epoch))
    schedule = make_schedule(
        config.optimizer.schedule,
        learning_rate=config.optimizer.learning_rate,
        warmup_steps=min(round(config.optimizer.warmup_epochs * steps_per_epoch), total_steps - 1),
        total_steps=total_steps,
    )
    optimizers = _make_optimizers(config, schedule)
    init = functools.partial(
        init_state,
        student=student,
        objectives=objectives,
        optimizers=optimizers,
        spec=Spec(
            num_classes=len(dataset.info.class_names),
            num_groups=len(dataset.info.group_names),
            student_width=_embedding_width(student, image_size),
            teacher_width=_embedding_width(teacher.module, image_size) if teacher else 0,
            group_counts=np.asarray(train.counts),
        ),
        image_size=image_size,
        seed=config.seed,
        with_ema=config.optimizer.ema_decay > 0,
    )
    step = make_train_step(
        student=student,
        teacher=teacher.module if teacher else None,
        objectives=objectives,
        optimizers=optimizers,
        augment=functools.partial(augment, augmentation=_augmentation(config), size=image_size),
        data_seed=config.data.seed,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        ema_decay=config.optimizer.ema_decay,
    )
    everywhere, split = replicated(mesh), over_batch(mesh)
    eval_step = make_eval_step(student, image_size=image_size, num_groups=len(dataset.info.group_names))
    return Program(
        name=name,
        mesh=mesh,
        init=jax.jit(init, out_shardings=everywhere),
        step=jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(everywhere, everywhere, split, everywhere),
            out_shardings=everywhere,
        ),
        eval_step=compile_eval_step(eval_step, mesh),
        abstract_state=_on(mesh, jax.eval_shape(init)),
        teacher_variables=teacher.variables if teacher else {},
        weights=replicate({n: np.float32(config[n].weight) for n in objectives}, mesh),
        learning_rate=schedule,
        train=train,
        validation=dataset.split("val"),
        batch_size=config.batch_size,
        data_seed=config.data.seed,
        total_steps=total_steps,
        log_every=config.log_every_steps,
        validate_every=max(1.0, config.eval_every_epochs * steps_per_epoch),
        checkpoint_every=config.checkpoint_every_steps,
        max_disparity=config.best.max_disparity,
    )


def _make_optimizers(config: ConfigDict, schedule: Any) -> dict[str, Any]:
    """The student's optimizer, which objectives share, and the adversary's own."""
    options = config.optimizer
    make = functools.partial(
        make_optimizer, options.name, momentum=options.momentum, clip_norm=options.clip_norm
    )
    own = make_schedule(
        "constant", learning_rate=config.adversary.learning_rate, warmup_steps=0, total_steps=1
    )
    return {STUDENT: make(schedule, weight_decay=options.weight_decay), "adversary": make(own)}


def _augmentation(config: ConfigDict) -> Augmentation:
    options = config.augment
    return Augmentation(
        crop_scale=(options.crop_scale, 1.0),
        flip=options.flip,
        brightness=options.brightness,
        contrast=options.contrast,
        saturation=options.saturation,
    )


def _embedding_width(module: nn.Module, image_size: int) -> int:
    def outputs(key: jax.Array) -> Outputs:
        return module.init_with_output(key, jnp.zeros((1, image_size, image_size, 3)))[0]

    return jax.eval_shape(outputs, jax.random.key(0)).embedding.shape[1]


def _on(mesh: jax.sharding.Mesh, tree: Tree) -> Tree:
    """Shapes and dtypes with a sharding: whole on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with lists, which a config read from JSON holds, as tuples again."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
