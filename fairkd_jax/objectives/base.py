"""The objective: a pair of pure functions, the way an optax transformation is one.

Everything a student learns from (labels, a teacher, an adversary) is an `Objective`. A training step
differentiates each of them at the student's `Outputs` and adds the weighted results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.types import Batch, Outputs, Tree

# Name -> (sum, weight): added up over steps and devices, divided once, on the host.
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Spec:
    """What an objective may know about the task when it makes its parameters.

    Attributes:
      num_classes: C.
      num_groups: G, the number of values of the protected attribute.
      student_width: D of the student's embedding.
      teacher_width: D of the teacher's embedding; 0 when there is no teacher.
      group_counts: int [G, C], training images by known group and class.
    """

    num_classes: int
    num_groups: int
    student_width: int
    teacher_width: int
    group_counts: np.ndarray


class Inputs(NamedTuple):
    """What an objective sees of one step.

    Attributes:
      student: the student's outputs, the only thing that gradients reach beside the objective's parameters.
      teacher: the teacher's outputs, or None where no objective uses a teacher.
      batch: label, group, mask and index, each [B].
      progress: float32 scalar, the fraction of the training that is done, in [0, 1].
      epoch: float32 scalar, fractional, counted from 0.
      strength: float32 scalar, an adversarial objective's own lambda; 0 for the others.
      key: a random key of this step; an objective folds its own name in.
    """

    student: Outputs
    teacher: Outputs | None
    batch: Batch
    progress: jax.Array
    epoch: jax.Array
    strength: jax.Array
    key: jax.Array


class Objective(NamedTuple):
    """A pair of pure functions, and what a step has to know about them.

    Attributes:
      init: `(key, spec) -> (params, state)`; either may be an empty dict. Raises `UsageError` where the
        objective is not defined for the task.
      loss: `(params, state, inputs) -> (value, (state, metrics))` with value [B], one loss per example, or
        a scalar where the examples of a batch depend on each other.
      uses_teacher: whether `inputs.teacher` is read.
      adversarial: whether the objective's weight is the strength of a gradient reversal instead of a
        factor of the loss: the factor is then 1, and the parameters learn at the same speed at any weight.
    """

    init: Callable[[jax.Array, Spec], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, Inputs], tuple[jax.Array, tuple[Tree, Metrics]]]
    uses_teacher: bool = False
    adversarial: bool = False


class Pull(NamedTuple):
    """One objective's value at a step and what it pulls on.

    Attributes:
      value: scalar, the unweighted loss.
      gradient: of the value, with respect to the objective's own parameters.
      cotangent: `Outputs`, of the value with respect to the student's outputs.
      state: the objective's next state.
      metrics: (sum, weight) pairs.
    """

    value: jax.Array
    gradient: Tree
    cotangent: Outputs
    state: Tree
    metrics: Metrics


def stateless(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
    """The `init` of an objective that has neither parameters nor state."""
    del key, spec
    return {}, {}


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts half precision to float32 and leaves float32 and float64 as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def masked_mean(value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean of value [B] over the samples whose mask [B] is 1; 0 where there is none."""
    if mask is None:
        return jnp.mean(value)
    counts = mask > 0
    return jnp.sum(jnp.where(counts, value, 0.0)) / jnp.maximum(jnp.sum(counts, dtype=value.dtype), 1.0)


def pull(objective: Objective, params: Tree, state: Tree, inputs: Inputs) -> Pull:
    """Differentiates one objective with respect to its parameters and the student's outputs.

    Args:
      objective: the objective.
      params: its parameters.
      state: its state.
      inputs: the step's inputs.

    Returns:
      The `Pull`; a loss per example is reduced to its mean over `inputs.batch["mask"]`.
    """

    def scalar(params: Tree, student: Outputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        value, aux = objective.loss(params, state, inputs._replace(student=student))
        return (masked_mean(value, inputs.batch["mask"]) if value.ndim else value), aux

    (value, (state, metrics)), (gradient, cotangent) = jax.value_and_grad(scalar, (0, 1), has_aux=True)(
        params, inputs.student
    )
    return Pull(value, gradient, cotangent, state, metrics)


def coefficients(
    objectives: Mapping[str, Objective], weights: Mapping[str, jax.Array]
) -> dict[str, jax.Array | float]:
    """The factor of each objective in the sum: its weight, or 1 for an adversarial one."""
    return {name: 1.0 if objective.adversarial else weights[name] for name, objective in objectives.items()}


def weighted_sum(trees: Mapping[str, Any], factors: Mapping[str, jax.Array | float]) -> Any:
    """`sum_name factors[name] * trees[name]` for pytrees of the same structure."""
    scaled = [jax.tree.map(lambda leaf, factor=factors[name]: factor * leaf, trees[name]) for name in trees]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *scaled)
