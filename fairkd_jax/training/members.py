"""Which runs a population stands for: the combinations of its seeds, weights and learning rates."""

import itertools
from typing import Any

from ml_collections import ConfigDict

from fairkd_jax.errors import UsageError
from fairkd_jax.training.config import alone, check


def axes_of(config: ConfigDict) -> dict[str, tuple[Any, ...]]:
    """What the members of a population differ in: key of the config -> values; empty for a lone run.

    Raises:
      UsageError: a weight is that of no objective of the run, or a value stands there twice.
    """
    population = config.population
    weights = {name: tuple(values) for name, values in population.weights.items() if len(tuple(values))}
    for name in weights:
        if name not in config.objectives:
            raise UsageError(
                f"population.weights.{name}: {name} is none of the run's objectives,"
                f" {', '.join(config.objectives)}"
            )
    found = {f"{name}.weight": values for name, values in weights.items()}
    for key, name in (("optimizer.learning_rate", "learning_rates"), ("seed", "seeds")):
        if len(values := tuple(population[name])):
            found[key] = values
    for key, values in found.items():
        if len(set(values)) < len(values):
            raise UsageError(f"population: {key} has {', '.join(map(str, values))}, one of them twice")
    return found


def is_population(config: ConfigDict) -> bool:
    """Whether a config stands for several students."""
    return bool(axes_of(config))


def members_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """The configs of the lone runs that a population stands for, by the names of their folders.

    Raises:
      UsageError: as of `axes_of`, or a member's config is wrong.
    """
    axes = axes_of(config)
    members = {}
    for values in itertools.product(*axes.values()):
        own, taken = config.copy_and_resolve_references(), {}
        for key, value in zip(axes, values, strict=True):
            section, _, name = key.rpartition(".")
            holder = own[section] if section else own
            try:
                holder[name] = taken[key] = type(holder[name])(value)
                if not isinstance(value, str) and taken[key] != value:
                    raise ValueError
            except (TypeError, ValueError):
                raise UsageError(
                    f"population: {key} cannot be {value!r}; give numbers, such as 0,1 or (0.5, 2.0)"
                ) from None
        alone(own)
        check(own)
        name = ",".join(f"{key}={value}" for key, value in taken.items())
        members[name] = own
    return members
