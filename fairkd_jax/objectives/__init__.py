"""What a student learns from: one file a method, its paper named on top."""

import inspect
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
    Inputs,
    Metrics,
    Objective,
    Pull,
    Spec,
    checked,
    coefficients,
    has_strength,
    pull,
)

# To add a method, add its file and a line here; its keyword arguments are its section in configs/base.py.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "cross_entropy": cross_entropy.objective,
    "ckd": ckd.objective,
    "rkd_distance": rkd.distance_objective,
    "rkd_angle": rkd.angle_objective,
    "ctkd": ctkd.objective,
    "kdpp": kdpp.objective,
    "dkd": dkd.objective,
    "dist": dist.objective,
    "adversary": adversary.objective,
    "mfd": mfd.objective,
    "bias_critic": bias_critic.objective,
}


def create_objective(name: str, **options: object) -> Objective:
    """Makes the objective of that name.

    Args:
      name: a key of `OBJECTIVES`.
      **options: keyword arguments of its factory.

    Raises:
      UsageError: the name is unknown, or an option is out of range.
      ValueError: what the objective says of itself does not fit together.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"unknown objective {name!r}; one of {', '.join(OBJECTIVES)}")
    known = inspect.signature(OBJECTIVES[name]).parameters
    for option in options:
        if option not in known:
            words = ", ".join(known) or "none"
            raise UsageError(f"{name}.{option} is no option of this objective; its options are: {words}")
    return checked(name, OBJECTIVES[name](**options))


__all__ = [
    "OBJECTIVES",
    "Inputs",
    "Metrics",
    "Objective",
    "Pull",
    "Spec",
    "coefficients",
    "create_objective",
    "has_strength",
    "pull",
]
