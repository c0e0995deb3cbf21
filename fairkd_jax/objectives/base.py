"""The objective: a pair of pure functions, the way an optax transformation is one.

Everything a student learns from (labels, a teacher, an adversary) is an `Objective`. A training step
differentiates each of them at the student's `Outputs` and adds the weighted results.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Batch, Outputs, Tree

ACTS_BY = ("reversal", "ratio", "projection")
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
      group_counts: [G, C], training images by known group and class; what is expected of them, not
        necessarily whole, where they are drawn unevenly.
      class_means: float [C, E], the teacher's mean embedding of each class; None where no objective needs it.
    """

    num_classes: int
    num_groups: int
    student_width: int
    teacher_width: int
    group_counts: np.ndarray
    class_means: np.ndarray | None = None


class Inputs(NamedTuple):
    """What an objective sees of one step.

    Attributes:
      student: the student's outputs, the only thing that gradients reach beside the objective's parameters.
      teacher: the teacher's outputs, or None where no objective uses a teacher.
      batch: label, group, mask and index, each [B].
      progress: float32 scalar, the fraction of the training that is done, in [0, 1].
      epoch: float32 scalar, fractional, counted from 0.
      strength: float32 scalar, the weight of an objective that is adversarial or has a multiplier; else 0.
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
      adversarial: whether the objective's weight is the strength with which it acts on the student instead of
        a factor of the loss: the factor is then 1, and the parameters learn at the same speed at any weight.
      acts_by: how an adversarial objective acts. "reversal": by the gradient that its own loss gives the
        student, already reversed and scaled. The loss of the others reverses but does not scale: "ratio", the
        strength is the norm of its pull over that of all others'; "projection", see `gradients.projected`.
      strength: `inputs -> scalar`, how strongly one acts at a step whose `acts_by` is not "reversal".
      multiplier: `(params, inputs) -> scalar`, differentiated at the student's outputs: a factor of the loss
        of those that are `task`s. Not of `params`: what an objective learns is its own loss.
      task: whether the loss is that of the labels.
      extra_steps: how many further updates its parameters take before each step of the student.
      debiases: whether its weight is 0 in a run without debiasing.
      uses_class_means: whether `init` reads `spec.class_means`.
      warmup_epochs: the weight rises linearly from 0 over so many epochs; 0.0 where it is constant.
      smallest_batch: how many images a batch must have for the loss to be defined.
    """

    init: Callable[[jax.Array, Spec], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, Inputs], tuple[jax.Array, tuple[Tree, Metrics]]]
    uses_teacher: bool = False
    adversarial: bool = False
    acts_by: str = "reversal"
    strength: Callable[[Inputs], jax.Array] | None = None
    multiplier: Callable[[Tree, Inputs], jax.Array] | None = None
    task: bool = False
    extra_steps: int = 0
    debiases: bool = False
    uses_class_means: bool = False
    warmup_epochs: float = 0.0
    smallest_batch: int = 1


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


def checked_warmup(section: str, epochs: float) -> float:
    """The length of a warm-up, in epochs, from a config's section.

    Raises:
      UsageError: it is negative or not finite.
    """
    if not 0.0 <= epochs < math.inf:
        raise UsageError(f"{section}.warmup_epochs={epochs} must be 0 or more, and finite")
    return epochs


def weighted_mean(value: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean of value [B] by weight [B] (a mask, or weights of samples); 0 where all weigh 0."""
    counts = weight > 0
    total = jnp.sum(jnp.where(counts, weight, 0.0))
    return jnp.sum(jnp.where(counts, weight * value, 0.0)) / jnp.where(total > 0, total, 1.0)


def pull(objective: Objective, params: Tree, state: Tree, inputs: Inputs) -> Pull:
    """Differentiates one objective with respect to its parameters and the student's outputs.

    Args:
      objective: the objective.
      params: its parameters.
      state: its state.
      inputs: the step's inputs.

    Returns:
      The `Pull`; a loss per example is reduced to its mean by `inputs.batch["mask"]`, which may hold weights
      of samples instead of zeros and ones.
    """

    def scalar(params: Tree, student: Outputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        value, aux = objective.loss(params, state, inputs._replace(student=student))
        return (weighted_mean(value, inputs.batch["mask"]) if value.ndim else value), aux

    (value, (state, metrics)), (gradient, cotangent) = jax.value_and_grad(scalar, (0, 1), has_aux=True)(
        params, inputs.student
    )
    return Pull(value, gradient, cotangent, state, metrics)


def checked(name: str, objective: Objective) -> Objective:
    """The objective, once what it says of itself fits together.

    Raises:
      ValueError: it does not.
    """
    if objective.acts_by not in ACTS_BY:
        raise ValueError(f"{name} acts_by {objective.acts_by!r}; one of {', '.join(ACTS_BY)}")
    if objective.acts_by != "reversal" and objective.strength is None:
        raise ValueError(f"{name} acts_by {objective.acts_by!r} and must say its strength")
    if objective.extra_steps and not has_strength(objective):
        raise ValueError(
            f"{name} takes extra steps, which its weight would have to scale; make it adversarial"
        )
    return objective


def has_strength(objective: Objective) -> bool:
    """Whether an objective's weight is handed to it as `inputs.strength`, rather than being a factor."""
    return objective.adversarial or objective.multiplier is not None


def coefficients(
    objectives: Mapping[str, Objective], weights: Mapping[str, jax.Array], epoch: jax.Array
) -> dict[str, jax.Array | float]:
    """The factor of each objective in the sum.

    Args:
      objectives: by name.
      weights: by name, float32 scalars.
      epoch: float32 scalar, fractional, counted from 0.

    Returns:
      Its weight, less during its warm-up; 1 for one whose weight is a strength.
    """
    factors: dict[str, jax.Array | float] = {}
    for name, objective in objectives.items():
        factors[name] = 1.0 if has_strength(objective) else weights[name]
        if objective.warmup_epochs and not has_strength(objective):
            factors[name] *= jnp.minimum(epoch / objective.warmup_epochs, 1.0)
    return factors
