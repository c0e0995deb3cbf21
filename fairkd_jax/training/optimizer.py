"""Optimizers and learning-rate schedules, from optax."""

import fnmatch
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Tree

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")


def decayed(params: Tree) -> Tree:
    """Marks the leaves that weight decay acts on: kernels, but neither biases nor norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def fine_tuned(
    optimizer: optax.GradientTransformation,
    *,
    backbone_scale: float,
    head_first_steps: int,
    frozen: tuple[str, ...],
) -> optax.GradientTransformation:
    """An optimizer for a model whose backbone is pretrained and whose head may be new.

    Args:
      optimizer: of the whole model.
      backbone_scale: factor of the learning rate of all but the head, `classifier`.
      head_first_steps: over so many steps the head alone moves.
      frozen: patterns, as of `fnmatch`, of the names of arrays that never move, such as "stage0*" or
        "*_bn/*"; a name is the path in the parameters, with slashes.
    """
    if backbone_scale == 1.0 and not head_first_steps and not frozen:
        return optimizer

    def part(path: tuple, leaf: jax.Array) -> str:
        name = "/".join(entry.key for entry in path)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in frozen):
            return "frozen"
        return "head" if name.startswith("classifier/") else "backbone"

    parts = {
        "head": optax.identity(),
        "backbone": optax.scale_by_schedule(
            lambda step: jnp.where(step < head_first_steps, 0.0, backbone_scale)
        ),
        "frozen": optax.set_to_zero(),
    }
    return optax.chain(
        optimizer, optax.partition(parts, lambda params: jax.tree_util.tree_map_with_path(part, params))
    )


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
