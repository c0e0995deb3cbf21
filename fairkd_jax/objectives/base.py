"""The objective: a pair of pure functions, as an optax transformation is a pair of functions.

Labels, a teacher and an adversary all teach a student by an `Objective` each. A training step differentiates
each objective at the student's `Outputs` and adds the weighted results.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.results import check_result
from fairkd_jax.types import Batch, Outputs, Tree

# Name -> (sum, weight). Both are summed over steps and devices; the host divides once.
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class TaskInfo:
    """The description of the task from which an objective makes its parameters.

    Attributes:
      num_classes: Number C of classes.
      num_groups: Number G of groups, the values of the protected attribute.
      student_width: Width D of the student's embedding.
      teacher_width: Width E of the teacher's embedding; 0 without a teacher.
      group_counts: Number of training images by known group and class, [G, C]. Where images are drawn
        unevenly, the expected number, which need not be whole.
      class_means: The teacher's mean embedding of each class, float [C, E]; None where no objective needs
        class means.
    """

    num_classes: int
    num_groups: int
    student_width: int
    teacher_width: int
    group_counts: np.ndarray
    class_means: np.ndarray | None = None


class Inputs(NamedTuple):
    """The inputs of an objective at one step.

    Attributes:
      student: The student's outputs. Gradients reach these outputs and the objective's own parameters alone.
      teacher: The teacher's outputs; None where no objective uses a teacher.
      batch: The arrays label, group, mask and index, each [B].
      progress: Fraction of the training that is done, float32 scalar in [0, 1].
      epoch: Number of epochs that are done, float32 scalar, fractional.
      strength: Weight of an objective whose influence is not `Weighted`, float32 scalar; 0 otherwise.
      key: Random key of this step; an objective folds its own name into the key.
    """

    student: Outputs
    teacher: Outputs | None
    batch: Batch
    progress: jax.Array
    epoch: jax.Array
    strength: jax.Array
    key: jax.Array


@dataclass(frozen=True)
class Weighted:
    """The student descends the loss, times the objective's weight.

    Attributes:
      warmup_epochs: Number of epochs over which the weight rises linearly from 0; 0.0 for a constant weight.
    """

    warmup_epochs: float = 0.0


@dataclass(frozen=True)
class Reversal:
    """The loss reverses the student's gradient, and scales this gradient by the strength.

    Attributes:
      extra_steps: Number of further updates of the objective's parameters before each step of the student.
    """

    extra_steps: int = 0


@dataclass(frozen=True)
class Ratio:
    """The loss reverses the student's gradient; the step scales its norm relative to all other objectives.

    Attributes:
      strength: Function `inputs -> scalar`: the norm of this gradient at the embedding, divided by the norm
        of the gradient of all other objectives.
      extra_steps: Number of further updates of the objective's parameters before each step of the student.
    """

    strength: Callable[[Inputs], jax.Array]
    extra_steps: int = 0


@dataclass(frozen=True)
class Projection:
    """The loss reverses the student's gradient; the step projects (see `project_out`, Zhang et al. 2018).

    Attributes:
      strength: Function `inputs -> scalar`, alpha of `engine.gradients.project_out`.
      extra_steps: Number of further updates of the objective's parameters before each step of the student.
    """

    strength: Callable[[Inputs], jax.Array]
    extra_steps: int = 0


@dataclass(frozen=True)
class Multiplier:
    """A factor multiplies the losses of the labels. The objective's own loss does not reach the student.

    Attributes:
      factor: Function `(params, inputs) -> scalar`, differentiated at the student's outputs.
    """

    factor: Callable[[Tree, Inputs], jax.Array]


Influence = Weighted | Reversal | Ratio | Projection | Multiplier
ADVERSARIAL = (Reversal, Ratio, Projection)
Decay = Literal["kernels", "all", "none"]


class Objective(NamedTuple):
    """A pair of pure functions, and everything else that the package must know about a method.

    Attributes:
      init: Function `(key, info) -> (params, state)`; either may be an empty dict. The function raises
        `UsageError` where the objective is not defined for the data.
      loss: Function `(params, state, inputs) -> (value, (state, metrics))`. The value has shape [B], one loss
        per example, or is a scalar where the examples of a batch depend on each other.
      label: Short name in tables; for an empty label, `create_objective` takes the key in `OBJECTIVES`.
      influence: How the objective acts on the student: `Weighted`, `Reversal`, `Ratio`, `Projection` or
        `Multiplier`. All kinds but the first receive the weight as `inputs.strength`. The objective's own
        parameters then learn at the same speed at any weight.
      learning_rate: Constant learning rate of the objective's own parameters; None for the student's rate.
      decay: The objective's own parameters on which weight decay acts: "kernels", "all" or "none". With a
        learning rate of its own, an objective has no weight decay.
      uses_teacher: Whether `loss` reads `inputs.teacher`.
      uses_class_means: Whether `init` reads `info.class_means`.
      is_task_loss: Whether the loss is the loss of the labels, which a `Multiplier` scales.
      debiases: Whether the weight is 0 in a run without debiasing.
      smallest_batch: Number of images that a batch must have for the loss to be defined.
    """

    init: Callable[[jax.Array, TaskInfo], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, Inputs], tuple[jax.Array, tuple[Tree, Metrics]]]
    label: str = ""
    influence: Influence = Weighted()
    learning_rate: float | None = None
    decay: Decay = "kernels"
    uses_teacher: bool = False
    uses_class_means: bool = False
    is_task_loss: bool = False
    debiases: bool = False
    smallest_batch: int = 1

    @property
    def extra_steps(self) -> int:
        """Number of further updates of the objective's parameters before each step of the student."""
        return self.influence.extra_steps if isinstance(self.influence, ADVERSARIAL) else 0


class ObjectiveGradient(NamedTuple):
    """The value of an objective at a step, and its gradients.

    Attributes:
      value: The unweighted loss, scalar.
      gradient: Gradient of the value with respect to the objective's own parameters.
      cotangent: Gradient of the value with respect to the student's outputs, `Outputs`.
      state: The objective's next state.
      metrics: Pairs (sum, weight) by name.
    """

    value: jax.Array
    gradient: Tree
    cotangent: Outputs
    state: Tree
    metrics: Metrics


def init_nothing(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
    """Returns no parameters and no state: the `init` of an objective that has neither."""
    del key, info
    return {}, {}


def promote_to_float32(x: jax.Array) -> jax.Array:
    """Casts half precision to float32 and leaves float32 and float64 as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_warmup(section: str, epochs: float) -> None:
    """Checks the length of a warm-up from a config's section.

    Args:
      section: Name of the section, for the message.
      epochs: Length of the warm-up in epochs.

    Raises:
      UsageError: The length is negative or not finite.
    """
    if not 0.0 <= epochs < math.inf:
        raise UsageError(f"{section}.warmup_epochs={epochs} must be 0 or more, and finite")


def compute_weighted_mean(value: jax.Array, weight: jax.Array) -> jax.Array:
    """Computes the weighted mean of values.

    Args:
      value: Values, float [B]; a value of weight 0 may be NaN.
      weight: Weights, float [B]: a mask, or weights of samples.

    Returns:
      The mean, scalar; 0 where all weights are 0.
    """
    counts = weight > 0
    total = jnp.sum(jnp.where(counts, weight, 0.0))
    return jnp.sum(jnp.where(counts, weight * value, 0.0)) / jnp.where(total > 0, total, 1.0)


def differentiate(
    objective: Objective, params: Tree, state: Tree, inputs: Inputs, *, name: str = ""
) -> ObjectiveGradient:
    """Differentiates one objective with respect to its parameters and the student's outputs.

    Args:
      objective: The objective.
      params: The objective's parameters.
      state: The objective's state.
      inputs: The inputs of the step.
      name: Name of the objective, for messages.

    Returns:
      The value and its gradients. A loss per example is reduced to its mean, weighted by
      `inputs.batch["mask"]`, which may hold weights of samples instead of zeros and ones.

    Raises:
      UsageError: The loss returns something else than an objective must return.
    """

    def scalar(params: Tree, student: Outputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        found = objective.loss(params, state, inputs._replace(student=student))
        check_result(name, found, state, len(inputs.batch["mask"]))
        value, aux = found
        value = jnp.asarray(value)
        return (compute_weighted_mean(value, inputs.batch["mask"]) if value.ndim else value), aux

    (value, (state, metrics)), (gradient, cotangent) = jax.value_and_grad(scalar, (0, 1), has_aux=True)(
        params, inputs.student
    )
    return ObjectiveGradient(value, gradient, cotangent, state, metrics)


def loss_weights(
    objectives: Mapping[str, Objective], weights: Mapping[str, jax.Array], epoch: jax.Array
) -> dict[str, jax.Array | float]:
    """Returns the factor of each objective's loss.

    Args:
      objectives: Objectives by name.
      weights: Weights by name, float32 scalars.
      epoch: Number of epochs that are done, float32 scalar, fractional.

    Returns:
      The weight of a `Weighted` objective, smaller during its warm-up; 1.0 for every other objective.
    """
    factors: dict[str, jax.Array | float] = {}
    for name, objective in objectives.items():
        if not isinstance(objective.influence, Weighted):
            factors[name] = 1.0
            continue
        factors[name] = weights[name]
        if warmup := objective.influence.warmup_epochs:
            factors[name] *= jnp.minimum(epoch / warmup, 1.0)
    return factors
