"""Everything that the loop of a training runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from fairkd_jax.data.pipeline import Split
from fairkd_jax.engine.eval_step import EvalStep
from fairkd_jax.engine.state import TrainState
from fairkd_jax.engine.train_step import Step
from fairkd_jax.types import Tree


@dataclass(frozen=True)
class Program:
    """Everything that `fit` runs, for a single student or for a population.

    Attributes:
      name: Text in front of the progress lines.
      mesh: The devices.
      members: Number of members of a population; 0 for a single student, whose arrays have no axis for
        members.
      init: Function that makes the first state on the mesh.
      step: The compiled update.
      images_on_device: Whether the step holds the training images, so that a batch holds indices alone.
      eval_step: The compiled scoring of a batch.
      abstract_state: Shapes, dtypes and shardings of the saved state of one student.
      part: Function `(state, i) -> state` of the i-th student.
      join: Function `states -> state` of all students.
      teacher_variables: Variables of the frozen teacher on the mesh; empty without a teacher.
      weights: Weights by objective, float32, on the mesh.
      learning_rates: Learning rates for the log, float [students, total_steps].
      train: The training split.
      validation: The split that decides which checkpoint is the best.
      batch_size: Number of images in a step, over all devices.
      balanced: Whether the groups of a class are drawn equally often.
      data_seed: Seed of the order of the images.
      total_steps: Length of the training in steps.
      log_every: Number of steps between two reports.
      validate_every: Number of steps between two validations, not necessarily whole.
      checkpoint_every: Number of steps between two checkpoints.
      keep: Number of last checkpoints that stay.
      is_kept: Function `step -> whether a checkpoint of the step is saved and stays for good`.
      max_disparity: Bound on the corrected disparity of the best checkpoint, or None.
    """

    name: str
    mesh: jax.sharding.Mesh
    members: int
    init: Callable[[], TrainState]
    step: Step
    images_on_device: bool
    eval_step: EvalStep
    abstract_state: TrainState
    part: Callable[[TrainState, int], TrainState]
    join: Callable[[Sequence[TrainState]], TrainState]
    teacher_variables: Tree
    weights: Mapping[str, jax.Array]
    learning_rates: np.ndarray
    train: Split
    validation: Split
    batch_size: int
    balanced: bool
    data_seed: int
    total_steps: int
    log_every: int
    validate_every: float
    checkpoint_every: int
    keep: int
    is_kept: Callable[[int], bool]
    max_disparity: float | None
