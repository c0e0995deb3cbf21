"""Optimizers and learning-rate schedules, from optax."""

from collections.abc import Callable

import jax
import optax

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Tree

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")


def decayed(params: Tree) -> Tree:
    """Marks the leaves that weight decay acts on: kernels, but neither biases nor norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_schedule(name: str, *, learning_rate: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """A learning rate by step.

    Args:
      name: "cosine", which falls to 0 at `total_steps`, or "constant".
      learning_rate: the highest rate.
      warmup_steps: over so many steps the rate rises linearly from 0.
      total_steps: the length of the training.

    Raises:
      UsageError: the name is unknown.
    """
    if name not in SCHEDULES:
        raise UsageError(f"unknown schedule {name!r}; one of {', '.join(SCHEDULES)}")
    if name == "constant":
        body = optax.constant_schedule(learning_rate)
    else:
        body = optax.cosine_decay_schedule(learning_rate, max(1, total_steps - warmup_steps))
    if not warmup_steps:
        return body
    rise = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, max(1, warmup_steps - 1))
    return optax.join_schedules([rise, body], [warmup_steps])


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    clip_norm: float = 0.0,
    mask: Callable[[Tree], Tree] | None = decayed,
) -> optax.GradientTransformation:
    """An optimizer for one group of parameters.

    Args:
      name: "adamw" (decoupled decay) or "sgd" (Nesterov momentum; decay added to the gradient).
      schedule: the learning rate by step.
      weight_decay: on what `mask` marks.
      momentum: of "sgd".
      clip_norm: the largest allowed norm of the group's gradient; 0 for no limit.
      mask: marks the leaves that decay, kernels by default; None for all.

    Raises:
      UsageError: the name is unknown, or a number is negative.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {name!r}; one of {', '.join(OPTIMIZERS)}")
    if min(weight_decay, momentum, clip_norm) < 0:
        raise UsageError("weight_decay, momentum and clip_norm must not be negative")
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "adamw":
        parts.append(optax.adamw(schedule, weight_decay=weight_decay, mask=mask))
    else:
        parts.append(optax.add_decayed_weights(weight_decay, mask=mask))
        parts.append(optax.sgd(schedule, momentum=momentum, nesterov=momentum > 0))
    return optax.chain(*parts)
