"""The training step: teacher, student, objectives, adversary and every update in one compiled program."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fairkd_jax.objectives import (
    Inputs,
    Metrics,
    Objective,
    Spec,
    coefficients,
    has_strength,
    pull,
)
from fairkd_jax.training.evaluation import batch_counts
from fairkd_jax.training.gradients import Term, scaled, student_gradient
from fairkd_jax.training.state import TrainState, purpose_key, update_average
from fairkd_jax.types import Batch, Outputs, Tree

STUDENT = "student"
OBJECTIVES = "objectives"  # the optimizer of objectives that have none of their own
# Among the metrics, int32 [G+1, C, C] and no weight: the step's images by group, label and prediction.
COUNTS = "student/counts"
# Among the weights, where members of a population have learning rates of their own: the factor of a member's
# in the common schedule.
RATE = "learning_rate"
FIXED_RATE = ("adversary", "bias_critic")  # groups with a learning rate of their own

Step = Callable[[TrainState, Tree, Batch, Mapping[str, jax.Array]], tuple[TrainState, Metrics]]


def init_state(
    *,
    student: nn.Module,
    objectives: Mapping[str, Objective],
    optimizers: Mapping[str, optax.GradientTransformation],
    spec: Spec,
    image_size: int,
    seed: int,
    with_ema: bool = False,
) -> TrainState:
    """Makes the state before the first step; jit it to make it where it shall live.

    Args:
      student: the model.
      objectives: by name.
      optimizers: by group of parameters; one that is not named takes that of `OBJECTIVES`, or the student's.
      spec: the task.
      image_size: pixels of the side of the square images.
      seed: of the initialisation.
      with_ema: whether an average of the student is kept.
    """
    image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = student.init(purpose_key(seed, "init/student"), image)
    params, objective_state = {STUDENT: variables["params"]}, {}
    for name, objective in objectives.items():
        own, objective_state[name] = objective.init(purpose_key(seed, f"init/{name}"), spec)
        if jax.tree.leaves(own):
            params[name] = own
    average = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        batch_stats=variables["batch_stats"],
        objective_state=objective_state,
        opt_state={group: _optimizer(optimizers, group).init(tree) for group, tree in params.items()},
        # A copy: buffers that the average shared with the parameters could not be donated.
        ema=jax.tree.map(jnp.copy, average) if with_ema else {},
    )


def _optimizer(
    optimizers: Mapping[str, optax.GradientTransformation], group: str
) -> optax.GradientTransformation:
    return optimizers.get(group, optimizers.get(OBJECTIVES, optimizers[STUDENT]))


def make_train_step(
    *,
    student: nn.Module,
    teacher: nn.Module | None,
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

    The student is differentiated once, at its outputs: each objective gives a cotangent there, the sum of
    which is pulled back through the network (see `student_gradient`). The objectives' own parameters get
    their gradients beside it.

    Args:
      student: the model that learns; its method `classify` is its head.
      teacher: the frozen model, in inference form; None where no objective uses one.
      objectives: by name.
      optimizers: by group of parameters; one that is not named takes that of `OBJECTIVES`, or the student's.
      augment: `(key, uint8 images [B,H,W,3]) -> float32 images [B,S,S,3]`, normalised.
      augment_for_teacher: the same for a teacher that sees images of another size; None where it sees the
        student's.
      num_groups: G.
      data_seed: of the augmentation.
      total_steps: the length of the training, for `progress`.
      steps_per_epoch: for `epoch`.
      ema_decay: of the student's average; 0 for none.

    Returns:
      `step(state, teacher_variables, batch, weights) -> (state, metrics)`, not yet compiled. `weights` holds
      a float32 scalar per objective; changing one never recompiles. See also `RATE`.
    """

    def step(
        state: TrainState, teacher_variables: Tree, batch: Batch, weights: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
        key = purpose_key(data_seed, "augment", state.step)
        images = augment(key, batch["image"])
        taught: Any = None
        if teacher is not None:
            # The same key draws the same crops, mirrors and colours at another size.
            seen = augment_for_teacher(key, batch["image"]) if augment_for_teacher else images
            taught = jax.lax.stop_gradient(teacher.apply(teacher_variables, seen))
        forward = functools.partial(_forward, student, state, images)
        outputs, pullback, batch_stats = jax.vjp(forward, state.params[STUDENT], has_aux=True)
        inputs = Inputs(
            student=outputs,
            teacher=taught,
            batch={name: value for name, value in batch.items() if name != "image"},
            progress=state.step.astype(jnp.float32) / total_steps,
            epoch=state.step.astype(jnp.float32) / steps_per_epoch,
            strength=jnp.zeros((), jnp.float32),
            key=purpose_key(state.seed, "objectives", state.step),
        )
        given = {
            name: inputs._replace(strength=weights[name]) if has_strength(objective) else inputs
            for name, objective in objectives.items()
        }
        move = functools.partial(_moved, optimizers, weights.get(RATE))
        state = _ahead(objectives, move, state, given)
        terms = _terms(objectives, state, given, coefficients(objectives, weights, inputs.epoch))
        _, through_head = jax.vjp(functools.partial(_head, student, state), outputs.embedding)
        gradient, metrics = student_gradient(
            terms,
            through_head=lambda cotangent: through_head(cotangent)[0],
            pullback=lambda cotangent: pullback(cotangent)[0],
        )
        gradients = {STUDENT: gradient}
        for name, term in terms.items():
            if name in state.params:
                gradients[name] = scaled(term.pull.gradient, term.factor)
        params, opt_state = dict(state.params), dict(state.opt_state)
        for group, group_gradient in gradients.items():
            params[group], opt_state[group] = move(group, group_gradient, opt_state[group], params[group])
        current = {"params": params[STUDENT], "batch_stats": batch_stats}
        ema = update_average(state.ema, current, state.step, ema_decay) if ema_decay else state.ema
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            objective_state={name: term.pull.state for name, term in terms.items()},
            opt_state=opt_state,
            ema=ema,
        )
        metrics[COUNTS] = (batch_counts(batch, outputs.logits, num_groups), jnp.zeros((), jnp.float32))
        return state, metrics | _report(terms, gradients, params)

    return step


def _forward(student: nn.Module, state: TrainState, images: jax.Array, params: Tree) -> tuple[Outputs, Tree]:
    """The student in training form: its outputs, and its next running statistics."""
    outputs, updates = student.apply(
        {"params": params, "batch_stats": state.batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": purpose_key(state.seed, "dropout", state.step)},
    )
    return outputs, updates["batch_stats"]


def _ahead(
    objectives: Mapping[str, Objective],
    move: Callable[[str, Tree, Any, Tree], tuple[Tree, Any]],
    state: TrainState,
    inputs: Mapping[str, Inputs],
) -> TrainState:
    """The state after the extra updates of those objectives that take some before the student's step."""
    params, opt_state, own = dict(state.params), dict(state.opt_state), dict(state.objective_state)
    for name, objective in objectives.items():
        if not objective.extra_steps or name not in params:
            continue

        def update(carry: Any, i: jax.Array, name: str = name, objective: Objective = objective) -> Any:
            parameters, optimizer_state, objective_state = carry
            given = inputs[name]._replace(key=jax.random.fold_in(inputs[name].key, i))
            p = pull(objective, parameters, objective_state, given)
            return (*move(name, p.gradient, optimizer_state, parameters), p.state), None

        carry = (params[name], opt_state[name], own[name])
        carry, _ = jax.lax.scan(update, carry, jnp.arange(objective.extra_steps))
        params[name], opt_state[name], own[name] = carry
    return dataclasses.replace(state, params=params, opt_state=opt_state, objective_state=own)


def _terms(
    objectives: Mapping[str, Objective],
    state: TrainState,
    inputs: Mapping[str, Inputs],
    factors: Mapping[str, jax.Array | float],
) -> dict[str, Term]:
    """What each objective, as it stands, makes of its inputs."""
    terms = {}
    for name, objective in objectives.items():
        own = state.params.get(name, {})
        pulled = pull(objective, own, state.objective_state[name], inputs[name])
        terms[name] = Term(objective, own, inputs[name], pulled, factors[name])
    return terms


def _head(student: nn.Module, state: TrainState, embedding: jax.Array) -> Any:
    """The student's outputs from its embedding, in training form, with the same dropout as in `_forward`."""
    return student.apply(
        {"params": state.params[STUDENT]},
        embedding,
        train=True,
        method="classify",
        rngs={"dropout": purpose_key(state.seed, "dropout", state.step)},
    )


def _moved(
    optimizers: Mapping[str, optax.GradientTransformation],
    rate: jax.Array | None,
    group: str,
    gradient: Tree,
    state: Any,
    params: Tree,
) -> tuple[Tree, Any]:
    """A group's next parameters and optimizer state; `rate` is a factor of the student's learning rate."""
    updates, state = _optimizer(optimizers, group).update(gradient, state, params)
    if rate is not None and group not in FIXED_RATE:
        updates = jax.tree.map(lambda update: rate * update, updates)
    return optax.apply_updates(params, updates), state


def _report(terms: Mapping[str, Term], gradients: Mapping[str, Tree], params: Mapping[str, Tree]) -> Metrics:
    """Each objective's loss and metrics under its name, and the norms of gradients and new parameters."""
    one = jnp.ones((), jnp.float32)
    metrics: Metrics = {}
    for name, term in terms.items():
        metrics[f"{name}/loss"] = (term.pull.value, one)
        metrics |= {f"{name}/{key}": value for key, value in term.pull.metrics.items()}
    for group, gradient in gradients.items():
        metrics[f"{group}/gradient_norm"] = (optax.tree.norm(gradient), one)
        metrics[f"{group}/parameter_norm"] = (optax.tree.norm(params[group]), one)
    return metrics
