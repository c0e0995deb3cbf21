"""The training step: teacher, student, objectives, adversary and all updates in one compiled program.

The step differentiates the student once, at its outputs. Each objective gives a cotangent there, and
`compute_student_gradient` pulls the sum of all cotangents back through the network. The objectives' own
parameters get their gradients from the objectives.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fairkd_jax.engine.eval_step import count_batch
from fairkd_jax.engine.gradients import WeightedObjective, compute_student_gradient, scale
from fairkd_jax.engine.state import TrainState, rng_key
from fairkd_jax.engine.updates import STUDENT, Updater, find_optimizer
from fairkd_jax.models import Classifier
from fairkd_jax.objectives import (
    Inputs,
    Metrics,
    Objective,
    TaskInfo,
    Weighted,
    differentiate,
    loss_weights,
)
from fairkd_jax.types import Batch, Outputs, Tree

# Metric name, int32 [G+1, C, C] without a weight: the step's images by group, label and prediction.
COUNTS = "student/counts"
# Name among the weights, where a population has several learning rates: each member's factor of the common
# rate.
RATE = "learning_rate"

Step = Callable[[TrainState, Tree, Batch, Mapping[str, jax.Array]], tuple[TrainState, Metrics]]


def init_state(
    *,
    student: Classifier,
    objectives: Mapping[str, Objective],
    optimizers: Mapping[str, optax.GradientTransformation],
    info: TaskInfo,
    image_size: int,
    seed: int,
    with_ema: bool = False,
) -> TrainState:
    """Makes the state before the first step.

    Compile the function with `jax.jit` to make the state on its devices.

    Args:
      student: Model to train.
      objectives: Objectives by name.
      optimizers: Optimizers by group of parameters. A group without an optimizer uses that of `OBJECTIVES`,
        or the student's.
      info: Sizes of the classification task.
      image_size: Side of the square images, in pixels.
      seed: Seed of the initialization.
      with_ema: Whether the state holds an average of the student.
    """
    image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = student.init(rng_key(seed, "init/student"), image)
    params, objective_state = {STUDENT: variables["params"]}, {}
    for name, objective in objectives.items():
        own, objective_state[name] = objective.init(rng_key(seed, f"init/{name}"), info)
        if jax.tree.leaves(own):
            params[name] = own
    # A model without running statistics has no such variables.
    batch_stats = variables.get("batch_stats", {})
    average = {"params": variables["params"], "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        batch_stats=batch_stats,
        objective_state=objective_state,
        opt_state={group: find_optimizer(optimizers, group).init(tree) for group, tree in params.items()},
        # Donated buffers must not be shared with the parameters.
        ema=jax.tree.map(jnp.copy, average) if with_ema else {},
    )


def make_train_step(
    *,
    student: Classifier,
    teacher: Classifier | None,
    objectives: Mapping[str, Objective],
    optimizers: Mapping[str, optax.GradientTransformation],
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    augment_for_teacher: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    num_groups: int,
    data_seed: int,
    total_steps: int,
    steps_per_epoch: float,
    ema_decay: float = 0.0,
) -> Step:
    """Makes the pure function of one update.

    Args:
      student: Model to train; its method `classify` is its head.
      teacher: Frozen model in inference form; None where no objective uses a teacher.
      objectives: Objectives by name.
      optimizers: Optimizers by group of parameters. A group without an optimizer uses that of `OBJECTIVES`,
        or the student's.
      augment: Function `(key, uint8 images [B, H, W, 3]) -> float32 images [B, S, S, 3]`, normalized.
      augment_for_teacher: The same function for a teacher with images of another size; None where both models
        see the same images.
      num_groups: Number G of groups.
      data_seed: Seed of the augmentation.
      total_steps: Length of the training in steps, for `Inputs.progress`.
      steps_per_epoch: Number of steps in an epoch, for `Inputs.epoch`.
      ema_decay: Decay of the student's average; 0.0 for no average.

    Returns:
      Function `step(state, teacher_variables, batch, weights) -> (state, metrics)`, not yet compiled.
      `weights` holds a float32 scalar for each objective; another value never recompiles. See also `RATE`.
    """

    def step(
        state: TrainState, teacher_variables: Tree, batch: Batch, weights: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
        key = rng_key(data_seed, "augment", state.step)
        images = augment(key, batch["image"])
        # The same key draws the same crops, mirrors and colors at another size.
        teacher_images = augment_for_teacher(key, batch["image"]) if augment_for_teacher else images
        teacher_outputs = _apply_teacher(teacher, teacher_variables, teacher_images)
        outputs, pullback, batch_stats = _apply_student(student, state, images)
        inputs = _make_inputs(outputs, teacher_outputs, batch, state, total_steps, steps_per_epoch)
        updater = Updater(optimizers, objectives, weights.get(RATE))
        inputs_by_objective = _add_strengths(objectives, weights, inputs)
        state = updater.run_inner_steps(state, inputs_by_objective)
        factors = loss_weights(objectives, weights, inputs.epoch)
        terms = _differentiate_all(objectives, state, inputs_by_objective, factors)
        through_head = _make_head_pullback(student, state, outputs.embedding)
        gradient, metrics = compute_student_gradient(terms, through_head=through_head, pullback=pullback)
        gradients = _group_gradients(gradient, terms, state)
        state = updater.update_state(state, gradients, terms, batch_stats, ema_decay)
        metrics[COUNTS] = (count_batch(batch, outputs.logits, num_groups), jnp.zeros((), jnp.float32))
        return state, metrics | _collect_metrics(terms, gradients, state.params)

    return step


def _apply_teacher(teacher: Classifier | None, variables: Tree, images: jax.Array) -> Any:
    """Returns the teacher's outputs without a gradient; None without a teacher."""
    return None if teacher is None else jax.lax.stop_gradient(teacher.apply(variables, images))


def _apply_student(
    student: Classifier, state: TrainState, images: jax.Array
) -> tuple[Outputs, Callable[[Outputs], Tree], Tree]:
    """Returns the student's outputs, their pullback to the parameters, and the next running statistics."""
    forward = functools.partial(_forward, student, state, images)
    outputs, pullback, batch_stats = jax.vjp(forward, state.params[STUDENT], has_aux=True)
    return outputs, lambda cotangent: pullback(cotangent)[0], batch_stats


def _make_inputs(
    outputs: Outputs,
    teacher_outputs: Outputs | None,
    batch: Batch,
    state: TrainState,
    total_steps: int,
    steps_per_epoch: float,
) -> Inputs:
    """Makes the inputs that all objectives share; the strength is 0."""
    return Inputs(
        student=outputs,
        teacher=teacher_outputs,
        batch={name: value for name, value in batch.items() if name != "image"},
        progress=state.step.astype(jnp.float32) / total_steps,
        epoch=state.step.astype(jnp.float32) / steps_per_epoch,
        strength=jnp.zeros((), jnp.float32),
        key=rng_key(state.seed, "objectives", state.step),
    )


def _add_strengths(
    objectives: Mapping[str, Objective], weights: Mapping[str, jax.Array], inputs: Inputs
) -> dict[str, Inputs]:
    """Returns the inputs of each objective; an objective that is no weighted loss reads its own weight."""
    return {
        name: inputs if isinstance(objective.influence, Weighted) else inputs._replace(strength=weights[name])
        for name, objective in objectives.items()
    }


def _group_gradients(
    student: Tree, terms: Mapping[str, WeightedObjective], state: TrainState
) -> dict[str, Tree]:
    """Returns the gradients of the student and of each objective that has parameters."""
    own = {
        name: scale(term.gradient.gradient, term.factor)
        for name, term in terms.items()
        if name in state.params
    }
    return {STUDENT: student, **own}


def _forward(student: Classifier, state: TrainState, images: jax.Array, params: Tree) -> tuple[Outputs, Tree]:
    """Returns the student's outputs in training form, and its next running statistics."""
    outputs, updates = student.apply(
        {"params": params, "batch_stats": state.batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": rng_key(state.seed, "dropout", state.step)},
    )
    return outputs, updates.get("batch_stats", {})


def _differentiate_all(
    objectives: Mapping[str, Objective],
    state: TrainState,
    inputs: Mapping[str, Inputs],
    factors: Mapping[str, jax.Array | float],
) -> dict[str, WeightedObjective]:
    """Differentiates each objective at its inputs."""
    terms = {}
    for name, objective in objectives.items():
        own = state.params.get(name, {})
        gradient = differentiate(objective, own, state.objective_state[name], inputs[name], name=name)
        terms[name] = WeightedObjective(objective, own, inputs[name], gradient, factors[name])
    return terms


def _make_head_pullback(
    student: Classifier, state: TrainState, embedding: jax.Array
) -> Callable[[Outputs], jax.Array]:
    """Makes the function that pulls a cotangent of the outputs back to the embedding [B, D]."""

    def apply_head(embedding: jax.Array) -> Any:
        return student.apply(
            {"params": state.params[STUDENT]},
            embedding,
            train=True,
            method="classify",
            rngs={"dropout": rng_key(state.seed, "dropout", state.step)},  # the same dropout as in `_forward`
        )

    _, through_head = jax.vjp(apply_head, embedding)
    return lambda cotangent: through_head(cotangent)[0]


def _collect_metrics(
    terms: Mapping[str, WeightedObjective], gradients: Mapping[str, Tree], params: Mapping[str, Tree]
) -> Metrics:
    """Returns each objective's loss and metrics, and the norms of gradients and of new parameters."""
    one = jnp.ones((), jnp.float32)
    metrics: Metrics = {}
    for name, term in terms.items():
        metrics[f"{name}/loss"] = (term.gradient.value, one)
        metrics |= {f"{name}/{key}": value for key, value in term.gradient.metrics.items()}
    for group, gradient in gradients.items():
        metrics[f"{group}/gradient_norm"] = (optax.tree.norm(gradient), one)
        metrics[f"{group}/parameter_norm"] = (optax.tree.norm(params[group]), one)
    return metrics
