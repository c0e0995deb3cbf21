"""What a training step changes, as one pytree, and the random keys that it never carries."""

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
      step: int32 scalar, how many updates were made.
      seed: uint32 scalar, of initialisation and dropout.
      params: a dict from group to parameters: `student`, and each objective that has any.
      batch_stats: the student's running statistics.
      objective_state: a dict from objective to its state.
      opt_state: a dict from group to its optimizer's state.
      ema: averaged `{"params", "batch_stats"}` of the student, or an empty dict.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[str, Tree]
    batch_stats: Tree
    objective_state: dict[str, Tree]
    opt_state: dict[str, Any]
    ema: dict[str, Tree]

    def student_variables(self) -> dict[str, Tree]:
        """The student as `apply` takes it; the averaged one where an average is kept."""
        if self.ema:
            return {"params": self.ema["params"], "batch_stats": self.ema["batch_stats"]}
        return {"params": self.params["student"], "batch_stats": self.batch_stats}


def purpose_key(seed: jax.Array | int, purpose: str, step: jax.Array | int = 0) -> jax.Array:
    """The random key for a purpose at a step: the same on every device and after every restart.

    Args:
      seed: an integer, or a uint32 scalar.
      purpose: what it is for, such as "dropout".
      step: counted from 0.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


def update_average(average: Tree, current: Tree, step: jax.Array, decay: float) -> Tree:
    """Exponential moving average, with a shorter memory during the first steps.

    The decay is `min(decay, (1 + step) / (10 + step))`, as in TensorFlow's `ExponentialMovingAverage`.
    """
    step = step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, current)
