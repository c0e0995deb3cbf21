"""The state of a training as a pytree, and random keys, which are never part of the state."""

import zlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from fairkd_jax.types import Tree


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes; its buffers are donated.

    Attributes:
      step: Number of updates that were made, int32 scalar.
      seed: Seed of initialization and dropout, uint32 scalar.
      params: Parameters by group: `student`, and the name of each objective that has parameters.
      batch_stats: The student's running statistics.
      objective_state: State by objective.
      opt_state: State of the optimizer by group.
      ema: Average of the student, a dict with `params` and `batch_stats`; empty without an average.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[str, Tree]
    batch_stats: Tree
    objective_state: dict[str, Tree]
    opt_state: dict[str, Any]
    ema: dict[str, Tree]

    def student_variables(self) -> dict[str, Tree]:
        """Returns the student's variables for `apply`: the average where the state has one."""
        if self.ema:
            return {"params": self.ema["params"], "batch_stats": self.ema["batch_stats"]}
        return {"params": self.params["student"], "batch_stats": self.batch_stats}


def rng_key(seed: jax.Array | int, purpose: str, step: jax.Array | int = 0) -> jax.Array:
    """Returns the random key for a purpose at a step; the key is the same on every device and in every start.

    Args:
      seed: Seed, an integer or a uint32 scalar.
      purpose: Purpose of the key, such as "dropout".
      step: Step, counted from 0.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


def update_average(average: Tree, current: Tree, step: jax.Array, decay: float) -> Tree:
    """Updates an exponential moving average, whose memory is shorter during the first steps.

    The decay is `min(decay, (1 + step) / (10 + step))`, as in TensorFlow's `ExponentialMovingAverage`.

    Args:
      average: The average before this step, a pytree.
      current: The values of this step, a pytree of the same structure.
      step: Step, an int32 scalar, counted from 0.
      decay: Largest decay, in [0, 1).

    Returns:
      The new average.
    """
    step = step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, current)
