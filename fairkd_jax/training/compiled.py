"""The compiled programs of a training, for one student or for a population."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fairkd_jax.data.pipeline import Split
from fairkd_jax.objectives import Metrics
from fairkd_jax.ops import compiler_options
from fairkd_jax.training.cluster import smallest
from fairkd_jax.training.evaluation import EvalStep, compile_eval_step
from fairkd_jax.training.loop import Program
from fairkd_jax.training.population import (
    joining,
    parting,
    population_eval_step,
    population_step,
    state_sharding,
)
from fairkd_jax.training.room import check_room, peak_bytes, room_for
from fairkd_jax.training.sharding import over_batch, over_members, replicate, replicated
from fairkd_jax.training.state import TrainState
from fairkd_jax.training.step import RATE, Step
from fairkd_jax.training.stop import STOP, passing_on
from fairkd_jax.types import Batch, Tree


class Parts(NamedTuple):
    """What is compiled, of one student.

    Attributes:
      step: the update.
      eval_step: the scoring of a batch.
      start: `seed -> state`, the first one, on the mesh.
      train: the split to learn from.
      mesh: the devices.
    """

    step: Step
    eval_step: EvalStep
    start: Callable[[int], TrainState]
    train: Split
    mesh: jax.sharding.Mesh


def lone(parts: Parts, seed: int, weights: Mapping[str, float]) -> dict[str, Any]:
    """The attributes of a `Program` that have to do with how many students there are, for one.

    Args:
      parts: of it.
      seed: its own.
      weights: by objective.
    """
    everywhere = replicated(parts.mesh)
    return {
        "members": 0,
        "init": lambda: parts.start(seed),
        "step": _compiled(parts.step, parts, everywhere, everywhere),
        "eval_step": compile_eval_step(parts.eval_step, parts.mesh),
        "part": lambda state, i: state,
        "join": lambda states: states[0],
        "weights": replicate({name: np.float32(weight) for name, weight in weights.items()}, parts.mesh),
    }


def population(
    parts: Parts, seeds: Sequence[int], weights: Mapping[str, np.ndarray], factors: np.ndarray
) -> dict[str, Any]:
    """The same for a population, each of whose members starts as its lone run does.

    Args:
      parts: of one student.
      seeds: of the N members.
      weights: by objective, float32 [N].
      factors: float32 [N], of the common learning rate.
    """
    spread, join = over_members(parts.mesh), joining(parts.mesh)
    own = dict(weights) | ({RATE: factors} if (factors != 1.0).any() else {})
    return {
        "members": len(seeds),
        "init": lambda: join([parts.start(seed) for seed in seeds]),
        "step": _compiled(population_step(parts.step), parts, state_sharding(parts.mesh), spread),
        "eval_step": compile_eval_step(population_eval_step(parts.eval_step), parts.mesh, spread),
        "part": parting(parts.mesh),
        "join": join,
        "weights": jax.device_put(own, spread),
    }


class _WithImages:
    """A compiled update whose last argument are the training images on the device."""

    def __init__(self, compiled: Any, images: jax.Array) -> None:
        self._compiled, self.images = compiled, images

    def __call__(self, *arguments: Any) -> Any:
        return self._compiled(*arguments, self.images)

    def lower(self, *arguments: Any) -> Any:
        return self._compiled.lower(*arguments, self.images)


def _compiled(step: Step, parts: Parts, of_state: Any, of_weights: Any) -> Any:
    """Compiles the update; the training images are an argument of it where they are kept on the device.

    Every device holds all of them: it then finds its part of a batch without asking another one. The last two
    arguments say where state and weights lie.
    """
    step = passing_on(step)
    everywhere, split = replicated(parts.mesh), over_batch(parts.mesh)
    shardings = (of_state, everywhere, split, of_weights)
    options: Any = {
        "donate_argnums": 0,
        "out_shardings": (of_state, everywhere),
        "compiler_options": compiler_options(),
    }
    if parts.train.cache != "device":
        return jax.jit(step, in_shardings=shardings, **options)

    def gathering(
        state: TrainState,
        teacher_variables: Tree,
        batch: Batch,
        weights: Mapping[str, jax.Array],
        images: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        batch = batch | {"image": images[batch["index"]]}
        return step(state, teacher_variables, batch, weights)

    compiled = jax.jit(gathering, in_shardings=(*shardings, everywhere), **options)
    images = replicate(parts.train.images(), parts.mesh)
    parts.train.release()
    return _WithImages(compiled, images)


def check_fits(program: Program) -> None:
    """Checks, by XLA's plan of the step, that it fits the memory. The step is compiled then.

    Raises:
      UsageError: it does not; see `check_room`.
    """
    state, spread = program.abstract_state, over_members(program.mesh)

    def stacked(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((program.members, *x.shape), x.dtype, sharding=spread)

    if program.members:
        state = dataclasses.replace(jax.tree.map(stacked, state), step=state.step)
    rows, side, split = program.batch_size, program.train.size, over_batch(program.mesh)
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
    peak = peak_bytes(plan)
    placed = sum(leaf.nbytes for leaf in jax.tree.leaves(program.teacher_variables))
    placed += step.images.nbytes if program.images_on_device else 0
    coming = program.validation.coming_bytes()
    coming += 0 if program.images_on_device else program.train.coming_bytes()
    room = smallest(room_for(peak, coming, len(program.mesh.local_devices)))
    across = program.mesh.shape["population"]
    check_room(program.members // across, across, peak, placed, room)
