"""Optimizers and learning-rate schedules, made with optax."""

import fnmatch
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.engine.updates import OBJECTIVES, STUDENT
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Objective
from fairkd_jax.recipe.sections import FinetuneRecipe, OptimizerRecipe
from fairkd_jax.types import Tree

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")


def mark_kernels(params: Tree) -> Tree:
    """Marks the leaves that weight decay acts on: kernels, but neither biases nor norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_finetuning(
    optimizer: optax.GradientTransformation,
    *,
    backbone_scale: float,
    head_first_steps: int,
    frozen: tuple[str, ...],
    head: str,
) -> optax.GradientTransformation:
    """Makes the optimizer of a model with a pretrained backbone and a head that may be new.

    Args:
      optimizer: Optimizer of the whole model.
      backbone_scale: Factor of the learning rate of all arrays outside the head.
      head_first_steps: Number of first steps in which the head alone moves.
      frozen: `fnmatch` patterns of the names of arrays that never move, such as "stage0*" or "*_bn/*". A name
        is the path in the parameters, with slashes.
      head: Name of the head in the parameters.
    """
    if backbone_scale == 1.0 and not head_first_steps and not frozen:
        return optimizer

    def part(path: tuple, leaf: jax.Array) -> str:
        name = "/".join(entry.key for entry in path)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in frozen):
            return "frozen"
        return "head" if name.startswith(f"{head}/") else "backbone"

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
    """Makes the learning rate as a function of the step.

    Args:
      name: "cosine", which falls to 0 at `total_steps`, or "constant".
      learning_rate: Highest rate.
      warmup_steps: Number of steps over which the rate rises linearly from 0.
      total_steps: Length of the training in steps.

    Raises:
      UsageError: The name is unknown.
    """
    if name not in SCHEDULES:
        raise UsageError(f"unknown schedule {name!r}; use one of {', '.join(SCHEDULES)}")
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
    mask: Callable[[Tree], Tree] | None = mark_kernels,
) -> optax.GradientTransformation:
    """Makes the optimizer of one group of parameters.

    Args:
      name: "adamw" (decoupled decay) or "sgd" (Nesterov momentum; decay added to the gradient).
      schedule: Learning rate by step.
      weight_decay: Weight decay of the leaves that `mask` marks.
      momentum: Momentum of "sgd".
      clip_norm: Largest allowed norm of the group's gradient; 0.0 for no limit.
      mask: Function that marks the leaves that decay, kernels by default; None for all leaves.

    Raises:
      UsageError: The name is unknown, or a number is negative.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {name!r}; use one of {', '.join(OPTIMIZERS)}")
    if min(weight_decay, momentum, clip_norm) < 0:
        raise UsageError("weight_decay, momentum and clip_norm must not be negative")
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "adamw":
        parts.append(optax.adamw(schedule, weight_decay=weight_decay, mask=mask))
    else:
        parts.append(optax.add_decayed_weights(weight_decay, mask=mask))
        parts.append(optax.sgd(schedule, momentum=momentum, nesterov=momentum > 0))
    return optax.chain(*parts)


def make_run_schedule(
    recipe: OptimizerRecipe, total_steps: int, steps_per_epoch: float, restarts: Sequence[int] = ()
) -> optax.Schedule:
    """Makes the student's learning rate as a function of the step.

    Args:
      recipe: The section of the optimizer.
      total_steps: Length of the training in steps.
      steps_per_epoch: Number of steps in an epoch, not necessarily whole.
      restarts: Steps at which a schedule over the rest begins, ascending.

    Raises:
      UsageError: The schedule's name is unknown.
    """
    bounds = (0, *restarts, total_steps)
    pieces = [
        make_schedule(
            recipe.schedule,
            learning_rate=recipe.learning_rate,
            warmup_steps=max(0, min(round(recipe.warmup_epochs * steps_per_epoch), end - start - 1)),
            total_steps=end - start,
        )
        for start, end in itertools.pairwise(bounds)
    ]
    return optax.join_schedules(pieces, list(restarts)) if restarts else pieces[0]


def make_optimizers(
    recipe: OptimizerRecipe,
    finetune: FinetuneRecipe,
    objectives: Mapping[str, Objective],
    schedule: optax.Schedule,
    steps_per_epoch: float,
    *,
    head: str,
) -> dict[str, optax.GradientTransformation]:
    """Makes the optimizers of all groups of parameters.

    Args:
      recipe: The section of the optimizer.
      finetune: The rules for a pretrained student.
      objectives: Objectives by name.
      schedule: The student's learning rate by step.
      steps_per_epoch: Number of steps in an epoch, not necessarily whole.
      head: Name of the student's head in the parameters.

    Returns:
      The student's optimizer, the optimizer that objectives share, and the optimizers of objectives with a
      learning rate or a weight decay of their own. A learning rate of its own comes without weight decay.

    Raises:
      UsageError: The optimizer's name is unknown, or a number is negative.
    """
    make = functools.partial(
        make_optimizer, recipe.name, momentum=recipe.momentum, clip_norm=recipe.clip_norm
    )
    common = make(schedule, weight_decay=recipe.weight_decay)
    optimizers = {
        # The parameters of an objective were not pretrained with the student.
        OBJECTIVES: common,
        STUDENT: make_finetuning(
            common,
            backbone_scale=finetune.backbone_scale,
            head_first_steps=round(finetune.head_first_epochs * steps_per_epoch),
            frozen=finetune.frozen,
            head=head,
        ),
    }
    for name, objective in objectives.items():
        if objective.learning_rate is not None:
            optimizers[name] = make(optax.constant_schedule(objective.learning_rate))
        elif objective.decay != "kernels":
            decay = recipe.weight_decay if objective.decay == "all" else 0.0
            optimizers[name] = make(schedule, weight_decay=decay, mask=None)
    return optimizers
