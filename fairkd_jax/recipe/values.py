"""The values of a config's keys: their form, and the range of each."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from fairkd_jax.data.catalog import DATASETS, normalize_options
from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.keys import TEACHER_KEYS
from fairkd_jax.user_paths import parse_path

_NAME_KEYS = ("class_names", "group_names", "missing")
_COUNT_KEYS = (
    "batch_size",
    "log_every_steps",
    "checkpoint_every_steps",
    "checkpoints.keep",
    "data.size",
    "data.image_size",
)
_POSITIVE_KEYS = ("optimizer.learning_rate", "teacher.learning_rate", "eval_every_epochs")
_SIZE_KEYS = (
    "population.wave_size",
    "checkpoints.keep_every_epochs",
    "finetune.backbone_scale",
    "finetune.head_first_epochs",
    "optimizer.warmup_epochs",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
)
# Each row: keys, the words of the error, and the condition.
_RULES: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (_COUNT_KEYS, "must be at least 1", lambda x: x >= 1),
    (_POSITIVE_KEYS, "must be above 0, and finite", lambda x: 0 < x < math.inf),
    (_SIZE_KEYS, "must be 0 or more, and finite", lambda x: 0 <= x < math.inf),
    (("seed", "data.seed", "data.digits.seed"), "must be from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32),
    (("optimizer.ema_decay", "optimizer.momentum"), "is not in [0, 1)", lambda x: 0 <= x < 1),
    (("data.max_bad_fraction",), "is not in [0, 1]", lambda x: 0 <= x <= 1),
    (("best.max_disparity",), "must be 0 or more", lambda x: x is None or x >= 0),
    (("teacher.image_size",), "must be at least 1", lambda x: x is None or x >= 1),
)


def normalize(config: ConfigDict) -> ConfigDict:
    """Returns a copy with absolute paths and with tuples of names.

    `--config.objectives=a,b` arrives as a single name "a,b" and becomes two names. A run's identity must not
    depend on the folder that the run was started in, so paths become absolute.
    """
    config = config.copy_and_resolve_references()
    lists = [(config, "objectives"), (config.finetune, "frozen")]
    for section, key in (*lists, *((config.data.manifest, k) for k in _NAME_KEYS)):
        names = tuple(map(str, section[key]))  # 0,1 and True,False arrive as numbers and truth values
        section[key] = tuple(filter(None, names[0].split(","))) if len(names) == 1 else names
    paths = [(config.teacher, "checkpoint"), (config.data, "source"), (config.data, "directory")]
    for section, key in (*paths, (config.student, "pretrained"), (config.teacher, "pretrained")):
        if section[key]:
            section[key] = str(parse_path(section[key]).absolute())
    # Values of renamed options mean the same data, and so must be equal.
    for name in DATASETS:
        for key, value in normalize_options(name, config.data.get(name, {})).items():
            config.data[name][key] = value
    return config


def check_values(config: ConfigDict) -> None:
    """Checks the values of single keys."""
    for key in TEACHER_KEYS:
        if config.teacher.checkpoint and config.teacher[key]:
            raise UsageError(
                f"teacher.{key} is for a teacher that is trained here; teacher.checkpoint is given"
            )
    for key, epochs, model in (
        ("epochs", config.epochs, "student"),
        ("teacher.epochs", config.teacher.epochs, "teacher"),
    ):
        given = model == "teacher" and config.teacher.checkpoint
        if epochs < 1 and (epochs or not (given or config[model].pretrained)):
            raise UsageError(f"{key}={epochs} must be at least 1, or 0 for a model with {model}.pretrained")
    for name, section in config.items():
        if isinstance(section, ConfigDict) and "weight" in section:
            rate = section.get("learning_rate", 1.0)
            if not 0 < rate < math.inf:
                raise UsageError(f"{name}.learning_rate={rate} must be above 0, and finite")
    for keys, words, holds in _RULES:
        for key in keys:
            value = operator.attrgetter(key)(config)
            if not holds(value):
                raise UsageError(f"{key}={value} {words}")


def check_finite(config: ConfigDict, prefix: str = "") -> None:
    """Checks that every number of a config is finite, also where no other check knows the key.

    Raises:
      UsageError: A number is infinite or NaN; the message names the key.
    """
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            check_finite(value, f"{prefix}{name}.")
        numbers = value if isinstance(value, tuple | list) else (value,)
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                raise UsageError(f"{prefix}{name}={value} must be finite")


def check_weights(weights: Mapping[str, float]) -> None:
    """Checks the weights of objectives, by name."""
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise UsageError(f"{name}.weight={weight} must be 0 or more, and finite")
