"""The students of a config: a single one, or the members of a population."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.values import check_values


@dataclass(frozen=True, eq=False)
class StudentRecipe:
    """One student of a run.

    Attributes:
      name: The name of its folder; empty for a single student, which has the run's folder.
      seed: Seed of initialization and dropout.
      learning_rate: Highest learning rate.
      weights: Weight of each objective, by name.
      config: The config of the student's own run, as `config.json` holds it.
    """

    name: str
    seed: int
    learning_rate: float
    weights: Mapping[str, float]
    config: ConfigDict


def find_axes(config: ConfigDict) -> dict[str, tuple[Any, ...]]:
    """Returns the keys in which the members of a population differ, with their values.

    Args:
      config: A normalized config.

    Returns:
      Key -> values; empty for a single run.

    Raises:
      UsageError: A weight belongs to no objective of the run, or a value is there twice.
    """
    population = config.population
    weights = {name: tuple(values) for name, values in population.weights.items() if len(tuple(values))}
    for name in weights:
        if name not in config.objectives:
            raise UsageError(
                f"population.weights.{name}: {name} is none of the run's objectives,"
                f" {', '.join(config.objectives)}"
            )
    axes = {f"{name}.weight": values for name, values in weights.items()}
    for key, name in (("optimizer.learning_rate", "learning_rates"), ("seed", "seeds")):
        if len(values := tuple(population[name])):
            axes[key] = values
    for key, values in axes.items():
        if len(set(values)) < len(values):
            raise UsageError(f"population: {key} has {', '.join(map(str, values))}, one of them twice")
    return axes


def make_students(config: ConfigDict) -> Iterator[StudentRecipe]:
    """Makes the single student of a config, or the members of its population."""
    axes = find_axes(config)
    if not axes:
        yield _make_student(config, "")
        return
    for values in itertools.product(*axes.values()):
        own, used = clear_population(config), {}
        for key, value in zip(axes, values, strict=True):
            used[key] = _set_value(own, key, value)
        check_values(own)
        yield _make_student(own, ",".join(f"{key}={value}" for key, value in used.items()))


def _make_student(config: ConfigDict, name: str) -> StudentRecipe:
    weights = {objective: config[objective].weight for objective in config.objectives}
    return StudentRecipe(name, config.seed, config.optimizer.learning_rate, weights, config)


def _set_value(config: ConfigDict, key: str, value: Any) -> Any:
    """Sets a key with dots to a member's value, in the type that the key has; returns the new value."""
    section, _, name = key.rpartition(".")
    holder = config[section] if section else config
    try:
        used = type(holder[name])(value)
        if not isinstance(value, str) and used != value:
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(
            f"population: {key} cannot be {value!r}; give numbers, such as 0,1 or (0.5, 2.0)"
        ) from None
    holder[name] = used
    return used


def clear_population(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a config that describes a single run."""
    config = config.copy_and_resolve_references()
    population = config.population
    population.seeds, population.learning_rates, population.wave_size = (), (), 0
    for name in population.weights:
        population.weights[name] = ()
    return config
