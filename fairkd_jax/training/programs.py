"""The compiled programs of a training, for a single student or for a population."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fairkd_jax.data.pipeline import Split
from fairkd_jax.distributed import min_over_hosts
from fairkd_jax.engine.eval_step import EvalStep, compile_eval_step
from fairkd_jax.engine.population import (
    make_join,
    make_part,
    make_population_eval_step,
    make_population_step,
    make_state_sharding,
)
from fairkd_jax.engine.sharding import (
    make_batch_sharding,
    make_member_sharding,
    make_replicated_sharding,
    replicate,
)
from fairkd_jax.engine.state import TrainState
from fairkd_jax.engine.train_step import RATE, Step
from fairkd_jax.objectives import Metrics
from fairkd_jax.ops import compiler_options
from fairkd_jax.training.memory import check_memory, measure_peak, plan_free_memory
from fairkd_jax.training.program import Program
from fairkd_jax.training.stop import STOP, with_stop_flag
from fairkd_jax.types import Batch, Tree


class StepFunctions(NamedTuple):
    """The functions of one student, before they are compiled.

    Attributes:
      step: The update.
      eval_step: The scoring of a batch.
      start: Function `seed -> state` that makes the first state on the mesh.
      train: The training split.
      mesh: The devices.
    """

    step: Step
    eval_step: EvalStep
    start: Callable[[int], TrainState]
    train: Split
    mesh: jax.sharding.Mesh


def single_program(parts: StepFunctions, seed: int, weights: Mapping[str, float]) -> dict[str, Any]:
    """Returns the attributes of a `Program` that depend on the number of students, for a single student.

    Args:
      parts: The functions of the student.
      seed: Seed of the student.
      weights: Weights by objective.
    """
    everywhere = make_replicated_sharding(parts.mesh)
    return {
        "members": 0,
        "init": lambda: parts.start(seed),
        "step": _compile_step(parts.step, parts, everywhere, everywhere),
        "eval_step": compile_eval_step(parts.eval_step, parts.mesh),
        "part": lambda state, i: state,
        "join": lambda states: states[0],
        "weights": replicate({name: np.float32(weight) for name, weight in weights.items()}, parts.mesh),
    }


def population_program(
    parts: StepFunctions, seeds: Sequence[int], weights: Mapping[str, np.ndarray], factors: np.ndarray
) -> dict[str, Any]:
    """Returns the same attributes for a population, whose members start as their single runs do.

    Args:
      parts: The functions of one student.
      seeds: Seeds of the N members.
      weights: Weights by objective, float32 [N].
      factors: Factors of the common learning rate, float32 [N].
    """
    spread, join = make_member_sharding(parts.mesh), make_join(parts.mesh)
    state_sharding = make_state_sharding(parts.mesh)
    own = dict(weights) | ({RATE: factors} if (factors != 1.0).any() else {})
    return {
        "members": len(seeds),
        "init": lambda: join([parts.start(seed) for seed in seeds]),
        "step": _compile_step(make_population_step(parts.step), parts, state_sharding, spread),
        "eval_step": compile_eval_step(make_population_eval_step(parts.eval_step), parts.mesh, spread),
        "part": make_part(parts.mesh),
        "join": join,
        "weights": jax.device_put(own, spread),
    }


class _WithImages:
    """A compiled update whose last argument holds the training images on the device."""

    def __init__(self, compiled: Any, images: jax.Array) -> None:
        self._compiled, self.images = compiled, images

    def __call__(self, *arguments: Any) -> Any:
        """Runs the update."""
        return self._compiled(*arguments, self.images)

    def lower(self, *arguments: Any) -> Any:
        """Lowers the update for shapes, without the images."""
        return self._compiled.lower(*arguments, self.images)


def _compile_step(step: Step, parts: StepFunctions, state_sharding: Any, weights_sharding: Any) -> Any:
    """Compiles the update; training images that stay on the device are an argument of the compiled step.

    Every device holds all images, and so needs no other device for its part of a batch.

    Args:
      step: The update.
      parts: The functions of one student.
      state_sharding: Sharding of the state.
      weights_sharding: Sharding of the weights.
    """
    step = with_stop_flag(step)
    everywhere, split = make_replicated_sharding(parts.mesh), make_batch_sharding(parts.mesh)
    shardings = (state_sharding, everywhere, split, weights_sharding)
    options: Any = {
        "donate_argnums": 0,
        "out_shardings": (state_sharding, everywhere),
        "compiler_options": compiler_options(),
    }
    if parts.train.cache != "device":
        return jax.jit(step, in_shardings=shardings, **options)

    def step_with_images(
        state: TrainState,
        teacher_variables: Tree,
        batch: Batch,
        weights: Mapping[str, jax.Array],
        images: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        batch = batch | {"image": images[batch["index"]]}
        return step(state, teacher_variables, batch, weights)

    compiled = jax.jit(step_with_images, in_shardings=(*shardings, everywhere), **options)
    images = replicate(parts.train.read_images(), parts.mesh)
    parts.train.release_images()
    return _WithImages(compiled, images)


def check_fits(program: Program) -> None:
    """Compiles the step, and checks by XLA's plan that the step fits the memory.

    Args:
      program: The compiled functions and the lengths of the training.

    Raises:
      UsageError: The step does not fit; see `check_memory`.
    """
    state, spread = program.abstract_state, make_member_sharding(program.mesh)

    def stack_members(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((program.members, *x.shape), x.dtype, sharding=spread)

    if program.members:
        state = dataclasses.replace(jax.tree.map(stack_members, state), step=state.step)
    rows, side, split = program.batch_size, program.train.size, make_batch_sharding(program.mesh)
    batch = {
        name: jax.ShapeDtypeStruct((rows,), dtype, sharding=split)
        for name, dtype in (("label", "int32"), ("group", "int32"), ("index", "int32"), ("mask", "float32"))
    }
    if not program.images_on_device:
        batch["image"] = jax.ShapeDtypeStruct((rows, side, side, 3), "uint8", sharding=split)
    if jax.process_count() > 1:
        batch[STOP] = batch["label"]
    step: Any = program.step
    plan = step.lower(state, program.teacher_variables, batch, program.weights).compile()
    peak = measure_peak(plan)
    placed = sum(leaf.nbytes for leaf in jax.tree.leaves(program.teacher_variables))
    placed += step.images.nbytes if program.images_on_device else 0
    coming = program.validation.count_pending_bytes()
    coming += 0 if program.images_on_device else program.train.count_pending_bytes()
    free = min_over_hosts(plan_free_memory(peak, coming, len(program.mesh.local_devices)))
    across = program.mesh.shape["population"]
    check_memory(program.members // across, across, peak, placed, free)
