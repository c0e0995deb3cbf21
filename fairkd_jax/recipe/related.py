"""Configs of runs that belong to a run: its teacher, and the same run without debiasing."""

from dataclasses import fields
from pathlib import Path

from ml_collections import ConfigDict

from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.keys import DEBIASING_SWITCHES, TEACHER_KEYS
from fairkd_jax.recipe.parse import Recipe
from fairkd_jax.recipe.population import clear_population
from fairkd_jax.recipe.sections import ModelRecipe


def teacher_config(config: ConfigDict) -> ConfigDict:
    """Returns the config of the run that trains a config's teacher."""
    config = clear_population(config)
    for field in fields(ModelRecipe):
        config.student[field.name] = config.teacher[field.name]
    config.objectives = ("cross_entropy",)
    config.cross_entropy.weight = 1.0
    # The debiasing of its students does not change a teacher, unless the teacher has heads for the groups
    # itself.
    config.cross_entropy.balanced = config.data.balance_groups = False
    config.epochs = config.teacher.epochs
    config.data.image_size = config.teacher.image_size or config.data.image_size
    config.optimizer.learning_rate = config.teacher.learning_rate
    config.best.max_disparity = None
    return config


def baseline_config(recipe: Recipe, teacher: Path | None) -> ConfigDict:
    """Returns the config of the same run without debiasing, from the same teacher.

    Args:
      recipe: The run with debiasing.
      teacher: The folder of the teacher; None for a run without a teacher.

    Raises:
      UsageError: Nothing debiases in this run, or the run is a population.
    """
    config = recipe.config.copy_and_resolve_references()
    debiasing = [name for name, objective in recipe.objectives.items() if objective.debiases]
    switches = [(config[section], key) for section, key in DEBIASING_SWITCHES]
    if not debiasing and not any(section[key] for section, key in switches):
        raise UsageError("--baseline compares with the run without debiasing, and this one has none")
    if recipe.is_population:
        raise UsageError("--baseline is for a single run; a population may have 0.0 among its weights")
    for name in debiasing:
        config[name].weight = 0.0
    for section, key in switches:
        section[key] = False
    return config if teacher is None else use_teacher(config, teacher)


def use_teacher(config: ConfigDict, folder: Path) -> ConfigDict:
    """Returns a copy of a config whose teacher is another run's student.

    Args:
      config: A config.
      folder: The folder of the teacher's run.
    """
    config = config.copy_and_resolve_references()
    config.teacher.checkpoint = str(folder.absolute())
    for key, value in TEACHER_KEYS.items():  # the teacher's own folder says how the teacher was trained
        config.teacher[key] = value
    return config
