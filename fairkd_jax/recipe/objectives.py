"""The objectives of a config."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Multiplier, Objective, Weighted, create_objective
from fairkd_jax.recipe.keys import DEBIASING_SWITCHES
from fairkd_jax.recipe.sections import make_tuples


def make_objectives(config: ConfigDict) -> dict[str, Objective]:
    """Makes the objectives that a config names, with the options in their sections.

    Raises:
      UsageError: A name or an option is wrong, or the objectives do not fit together.
    """
    if not config.objectives:
        raise UsageError("objectives is empty; name at least cross_entropy")
    if len(set(config.objectives)) < len(config.objectives):
        raise UsageError(f"objectives={','.join(config.objectives)} names one twice")
    objectives = {}
    for name in config.objectives:
        options = dict(config[name]) if name in config else {}
        options.pop("weight", None)
        objectives[name] = create_objective(name, **make_tuples(options))
    if not any(isinstance(objective.influence, Weighted) for objective in objectives.values()):
        raise UsageError("an adversary alone teaches nothing; add cross_entropy to objectives")
    has_labels = any(objective.is_task_loss for objective in objectives.values())
    for name, objective in objectives.items():
        if isinstance(objective.influence, Multiplier) and not has_labels:
            raise UsageError(f"{name} multiplies the loss of the labels; add cross_entropy to objectives")
    return objectives


def describe_objectives(objectives: Mapping[str, Objective]) -> dict[str, dict[str, Any]]:
    """Returns the description of each objective that `config.json` holds, for readers without the objective.

    Args:
      objectives: Objectives by name.

    Returns:
      For each name its `label` in tables, whether the objective `debiases`, and its `influence` in lower
      case.
    """
    return {
        name: {
            "label": objective.label,
            "debiases": objective.debiases,
            "influence": type(objective.influence).__name__.lower(),
        }
        for name, objective in objectives.items()
    }


def removes_bias(config: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> bool:
    """Returns whether a run removes bias; its run without debiasing does not.

    Args:
      config: The config of the run, as JSON has it.
      methods: The description of each objective by name, see `describe_objectives`.
    """
    weights = [config[name]["weight"] for name in config["objectives"] if methods[name]["debiases"]]
    return any(weights) or any(config[section][key] for section, key in DEBIASING_SWITCHES)


def describe_balancing(config: Mapping[str, Any], methods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lists the parts of a method that are no objective: balancing, heads, the form of lambda, controls.

    Args:
      config: The config of a run, as JSON has it.
      methods: The descriptions of its objectives, see `describe_objectives`.
    """
    influences = {method["influence"] for method in methods}
    switches = {
        "balanced sampling": config["data"]["balance_groups"],
        "balanced weights": config["cross_entropy"]["balanced"],
        "group heads": config["student"]["group_heads"],
        "as a ratio": "ratio" in influences,
        "by projection": "projection" in influences,
        "(positive control)": config["data"]["control"] == "patch",
        "(placebo)": config["data"]["control"] == "shuffle",
    }
    return [name for name, on in switches.items() if on]
