"""Reading a config: what is wrong with it, what it derives, and the parts that it describes."""

import fnmatch
import functools
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fairkd_jax.data.augment import Augmentation
from fairkd_jax.errors import UsageError
from fairkd_jax.models import EfficientNet, create_model
from fairkd_jax.objectives import Objective, create_objective, has_strength
from fairkd_jax.training.optimizer import fine_tuned, make_optimizer, make_schedule
from fairkd_jax.training.step import FIXED_RATE, OBJECTIVES, STUDENT

NAME_KEYS = ("class_names", "group_names")
COUNT_KEYS = (
    "batch_size",
    "epochs",
    "teacher.epochs",
    "log_every_steps",
    "checkpoint_every_steps",
    "data.size",
    "data.image_size",
)
POSITIVE_KEYS = (
    "optimizer.learning_rate",
    "teacher.learning_rate",
    "adversary.learning_rate",
    "bias_critic.learning_rate",
    "eval_every_epochs",
)
SIZE_KEYS = (
    "population.wave_size",
    "finetune.backbone_scale",
    "finetune.head_first_epochs",
    "optimizer.warmup_epochs",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
)
# What an objective's section holds beside the options of its factory.
TRAINING_KEYS = ("weight", "learning_rate", "decay")
MODEL_KEYS = (
    "architecture",
    "dtype",
    "dropout_rate",
    "stochastic_depth_rate",
    "pretrained",
    "frozen_norm",
    "norm_momentum",
    "rematerialize",
    "group_heads",
)
# Of the teacher's section: they describe one that is trained here, and stay empty where one is given.
TEACHER_KEYS = {"pretrained": "", "image_size": None, "group_heads": False}
# What timm fine-tunes both families with. Keras's 0.99 takes some 500 steps to follow a model that changes.
FINETUNED_NORM_MOMENTUM = 0.9


def resolved(config: ConfigDict) -> ConfigDict:
    """A copy with absolute paths, in which `--config.objectives=a,b`, which arrives as one name, is two."""
    config = config.copy_and_resolve_references()
    lists = [(config, "objectives"), (config.finetune, "frozen")]
    for section, key in (*lists, *((config.data.manifest, k) for k in NAME_KEYS)):
        names = tuple(section[key])
        section[key] = tuple(filter(None, names[0].split(","))) if len(names) == 1 else names
    paths = [(config.teacher, "checkpoint"), (config.data, "source"), (config.data, "directory")]
    for section, key in (*paths, (config.student, "pretrained"), (config.teacher, "pretrained")):
        if section[key]:  # what is kept of a run must not depend on the folder that it was started in
            section[key] = str(Path(section[key]).expanduser().absolute())
    return config


def check(config: ConfigDict) -> None:
    """Finds what can be found wrong with a config before any data is read.

    Raises:
      UsageError: one line that names the key.
    """
    objectives = make_objectives(config)
    for name in objectives:
        if name not in config or "weight" not in config[name]:
            raise UsageError(f"objective {name!r} has no {name}.weight in the config; add the section")
    if config.cross_entropy.balanced and "cross_entropy" not in config.objectives:
        raise UsageError("cross_entropy.balanced needs cross_entropy in objectives")
    for key in TEACHER_KEYS:
        if config.teacher.checkpoint and config.teacher[key]:
            raise UsageError(
                f"teacher.{key} is for a teacher that is trained here; teacher.checkpoint is given"
            )
    weights = [f"{name}.weight" for name in config.objectives]
    for keys, words, holds in (
        (COUNT_KEYS, "must be at least 1", lambda x: x >= 1),
        (POSITIVE_KEYS, "must be above 0", lambda x: 0 < x < math.inf),
        ((*weights, *SIZE_KEYS), "must be 0 or more, and finite", lambda x: 0 <= x < math.inf),
        (("seed", "data.seed", "data.digits.seed"), "must be from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32),
        (("optimizer.ema_decay", "optimizer.momentum"), "is not in [0, 1)", lambda x: 0 <= x < 1),
        (("data.max_bad_fraction",), "is not in [0, 1]", lambda x: 0 <= x <= 1),
        (("best.max_disparity",), "must be 0 or more", lambda x: x is None or x >= 0),
        (("teacher.image_size",), "must be at least 1", lambda x: x is None or x >= 1),
    ):
        for key in keys:
            value = operator.attrgetter(key)(config)
            if not holds(value):
                raise UsageError(f"{key}={value} {words}")
    for name, objective in objectives.items():
        if config.batch_size < (least := objective.smallest_batch):
            raise UsageError(f"batch_size={config.batch_size} is too small for {name}; use {least} or more")
    make_optimizers(config, make_run_schedule(config, 1, 1.0))
    make_augmentation(config)
    for model in (config.student, config.teacher):
        make_model(model, num_classes=2)
    if config.finetune.frozen:
        trained_here = [config.student] + [config.teacher] * (not config.teacher.checkpoint)
        _check_frozen(tuple(config.finetune.frozen), trained_here)


def _check_frozen(patterns: tuple[str, ...], sections: list[ConfigDict]) -> None:
    """Checks that each pattern of frozen names matches some array, and that not all arrays are frozen."""
    names: list[set[str]] = []
    for section in sections:
        model = make_model(section, num_classes=2)
        image = jnp.zeros((1, 32, 32, 3))
        params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
        names.append(set(flatten_dict(params, sep="/")))
    for pattern in patterns:
        if not any(fnmatch.filter(known, pattern) for known in names):
            some = ", ".join(sorted(names[0])[:3])
            raise UsageError(f"finetune.frozen: {pattern!r} matches no array; they are called {some}, ...")
    for known in names:
        if known == {name for pattern in patterns for name in fnmatch.filter(known, pattern)}:
            raise UsageError("finetune.frozen matches every array: nothing would be trained")


def make_model(section: Mapping[str, Any], num_classes: int, num_groups: int = 2) -> EfficientNet:
    """The model of a `student` or `teacher` section."""
    if section["dtype"] not in ("float32", "bfloat16"):
        raise UsageError(f"dtype={section['dtype']!r} is unknown; use float32 or bfloat16")
    momentum = section["norm_momentum"]
    if momentum is None and section["pretrained"]:
        momentum = FINETUNED_NORM_MOMENTUM
    return create_model(
        section["architecture"],
        num_classes=num_classes,
        dtype=jnp.dtype(section["dtype"]),
        dropout_rate=section["dropout_rate"],
        stochastic_depth_rate=section["stochastic_depth_rate"],
        frozen_norm=section["frozen_norm"],
        norm_momentum=momentum,
        rematerialize=section["rematerialize"],
        group_heads=num_groups if section["group_heads"] else 0,
    )


def teacher_config(config: ConfigDict) -> ConfigDict:
    """The config of the run that trains this config's teacher."""
    config = config.copy_and_resolve_references()
    for key in MODEL_KEYS:
        config.student[key] = config.teacher[key]
    config.objectives = ("cross_entropy",)
    config.cross_entropy.weight = 1.0
    # A teacher is what it is, however its students are debiased, unless it has heads for the groups itself.
    config.cross_entropy.balanced = config.data.balance_groups = False
    config.epochs = config.teacher.epochs
    config.data.image_size = config.teacher.image_size or config.data.image_size
    config.optimizer.learning_rate = config.teacher.learning_rate
    config.best.max_disparity = None
    alone(config)
    return config


def alone(config: ConfigDict) -> None:
    """Makes it the config of a lone run, in place."""
    population = config.population
    population.seeds, population.learning_rates, population.wave_size = (), (), 0
    for name in population.weights:
        population.weights[name] = ()


def baseline_config(config: ConfigDict, teacher: Path | None) -> ConfigDict:
    """The config of the same run without debiasing, from the same teacher.

    Raises:
      UsageError: nothing debiases in this config.
    """
    config = config.copy_and_resolve_references()
    debiasing = [name for name, objective in make_objectives(config).items() if objective.debiases]
    switches = (
        (config.cross_entropy, "balanced"),
        (config.data, "balance_groups"),
        (config.student, "group_heads"),
    )
    if not debiasing and not any(section[key] for section, key in switches):
        raise UsageError("--baseline compares with the run without debiasing, and this one has none")
    population = config.population
    if any(map(len, (population.seeds, population.learning_rates, *population.weights.values()))):
        raise UsageError("--baseline is for a lone run; a population may have 0.0 among its weights")
    for name in debiasing:
        config[name].weight = 0.0
    for section, key in switches:
        section[key] = False
    if teacher is not None:
        give_teacher(config, teacher)
    return config


def give_teacher(config: ConfigDict, folder: Path) -> None:
    """Makes a config that of a run whose teacher another run has trained, in place."""
    config.teacher.checkpoint = str(folder.absolute())
    for key, value in TEACHER_KEYS.items():  # how it was trained is known from its own folder
        config.teacher[key] = value


def make_objectives(config: ConfigDict) -> dict[str, Objective]:
    """The objectives that the config names, with their options."""
    if not config.objectives:
        raise UsageError("objectives is empty; name at least cross_entropy")
    if len(set(config.objectives)) < len(config.objectives):
        raise UsageError(f"objectives={','.join(config.objectives)} names one twice")
    objectives = {}
    for name in config.objectives:
        options = dict(config[name]) if name in config else {}
        for key in TRAINING_KEYS:
            options.pop(key, None)
        objectives[name] = create_objective(name, **with_tuples(options))
    if all(has_strength(objective) for objective in objectives.values()):
        raise UsageError("an adversary alone teaches nothing; add cross_entropy to objectives")
    tasks = [name for name, objective in objectives.items() if objective.task]
    for name, objective in objectives.items():
        if objective.multiplier is not None and not tasks:
            raise UsageError(f"{name} multiplies the loss of the labels; add cross_entropy to objectives")
    return objectives


def uses_teacher(config: ConfigDict) -> bool:
    """Whether a run of this config distils."""
    return any(objective.uses_teacher for objective in make_objectives(config).values())


def uses_class_means(config: ConfigDict) -> bool:
    """Whether a run of this config needs the teacher's mean embedding of each class."""
    return any(objective.uses_class_means for objective in make_objectives(config).values())


def total_steps(config: ConfigDict, num_train: int) -> int:
    """The length of a run, in steps."""
    return max(1, round(config.epochs * num_train / config.batch_size))


def make_run_schedule(config: ConfigDict, steps: int, steps_per_epoch: float) -> optax.Schedule:
    options = config.optimizer
    return make_schedule(
        options.schedule,
        learning_rate=options.learning_rate,
        warmup_steps=min(round(options.warmup_epochs * steps_per_epoch), steps - 1),
        total_steps=steps,
    )


def make_optimizers(config: ConfigDict, schedule: Any, steps_per_epoch: float = 1.0) -> dict[str, Any]:
    """The student's optimizer, what of it objectives share, and those that some have of their own."""
    options = config.optimizer
    make = functools.partial(
        make_optimizer, options.name, momentum=options.momentum, clip_norm=options.clip_norm
    )
    own = {
        name: make_schedule(
            "constant", learning_rate=config[name].learning_rate, warmup_steps=0, total_steps=1
        )
        for name in FIXED_RATE
    }
    # The temperature has no kernels: its whole group decays, or nothing of it.
    decay = options.weight_decay if config.ctkd.decay else 0.0
    common = make(schedule, weight_decay=options.weight_decay)
    return {
        # What an objective learns was not pretrained with the student.
        OBJECTIVES: common,
        STUDENT: fine_tuned(
            common,
            backbone_scale=config.finetune.backbone_scale,
            head_first_steps=round(config.finetune.head_first_epochs * steps_per_epoch),
            frozen=tuple(config.finetune.frozen),
        ),
        **{name: make(constant) for name, constant in own.items()},
        "ctkd": make(schedule, weight_decay=decay, mask=None),
    }


def make_augmentation(config: ConfigDict) -> Augmentation:
    options = config.augment
    return Augmentation(
        crop_scale=(options.crop_scale, 1.0),
        flip=options.flip,
        brightness=options.brightness,
        contrast=options.contrast,
        saturation=options.saturation,
    )


def with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with lists, which a config read from JSON holds, as tuples again."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
