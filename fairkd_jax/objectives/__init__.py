"""The objectives that a student learns from: a file for each method, with its paper at the top."""

import inspect
import math
from collections.abc import Callable

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import (
    adversary,
    bias_critic,
    ckd,
    cross_entropy,
    ctkd,
    dist,
    dkd,
    kdpp,
    mfd,
    rkd,
)
from fairkd_jax.objectives.base import (
    ADVERSARIAL,
    Influence,
    Inputs,
    Metrics,
    Multiplier,
    Objective,
    ObjectiveGradient,
    Projection,
    Ratio,
    Reversal,
    TaskInfo,
    Weighted,
    differentiate,
    loss_weights,
)

# To add a method, add its file, a line here, and its weight in configs/base.py. The keyword arguments of its
# factory become keys of the config, with their meanings from the docstring.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "cross_entropy": cross_entropy.make_objective,
    "ckd": ckd.make_objective,
    "rkd_distance": rkd.make_distance_objective,
    "rkd_angle": rkd.make_angle_objective,
    "ctkd": ctkd.make_objective,
    "kdpp": kdpp.make_objective,
    "dkd": dkd.make_objective,
    "dist": dist.make_objective,
    "adversary": adversary.make_objective,
    "mfd": mfd.make_objective,
    "bias_critic": bias_critic.make_objective,
}


def create_objective(name: str, **options: object) -> Objective:
    """Makes the objective of a name.

    Args:
      name: A key of `OBJECTIVES`.
      **options: Keyword arguments of the objective's factory.

    Raises:
      UsageError: The name or an option is unknown, or an option is out of range.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"unknown objective {name!r}; use one of {', '.join(OBJECTIVES)}")
    known = inspect.signature(OBJECTIVES[name]).parameters
    for option in options:
        if option not in known:
            words = ", ".join(known) or "none"
            raise UsageError(f"{name}.{option} is no option of this objective; its options are: {words}")
    objective = OBJECTIVES[name](**options)
    rate = objective.learning_rate
    if rate is not None and not 0.0 < rate < math.inf:
        raise UsageError(f"{name}.learning_rate={rate} must be above 0, and finite")
    return objective._replace(label=objective.label or name)


__all__ = [
    "ADVERSARIAL",
    "OBJECTIVES",
    "Influence",
    "Inputs",
    "Metrics",
    "Multiplier",
    "Objective",
    "ObjectiveGradient",
    "Projection",
    "Ratio",
    "Reversal",
    "TaskInfo",
    "Weighted",
    "create_objective",
    "differentiate",
    "loss_weights",
]
