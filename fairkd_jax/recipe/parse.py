"""The recipe of a run, and how it is read from a config."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

from fairkd_jax.data.augment import Augmentation
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Objective
from fairkd_jax.recipe.keys import count_steps
from fairkd_jax.recipe.objectives import make_objectives
from fairkd_jax.recipe.population import StudentRecipe, make_students
from fairkd_jax.recipe.sections import (
    CheckpointRecipe,
    DataRecipe,
    FinetuneRecipe,
    ModelRecipe,
    OptimizerRecipe,
    TeacherRecipe,
    parse_augmentation,
    parse_data,
    parse_model,
    parse_section,
)
from fairkd_jax.recipe.values import check_finite, check_values, check_weights, normalize

_RUN_KEYS = (
    "batch_size",
    "epochs",
    "log_every_steps",
    "eval_every_epochs",
    "checkpoint_every_steps",
    "tensorboard",
    "writer",
)


@dataclass(frozen=True)
class Recipe:
    """All that a config says, in the terms of the program.

    Attributes:
      objectives: Objectives by name.
      students: The students that train together: one, or the members of a population.
      is_population: Whether the students are members of a population, each with a folder of its own.
      wave_size: Number of members that train at once; 0 for all.
      model: The student's model.
      teacher: The teacher.
      optimizer: The student's optimizer.
      finetune: Rules for the head, the other layers and the frozen arrays.
      data: The data set and the form of its images.
      augmentation: Random changes of the images.
      balanced_loss: Whether the loss of the labels weighs the groups of a class equally.
      batch_size: Number of images in a step, over all devices.
      epochs: Number of passes over the training split.
      log_every_steps: Number of steps between two reports.
      eval_every_epochs: Number of epochs between two validations.
      checkpoint_every_steps: Number of steps between two checkpoints.
      checkpoints: Rules which checkpoints stay.
      tensorboard: Whether TensorBoard's event files are written.
      writer: Name of a user's function that receives the numbers, as module:function; "" for none.
      max_disparity: Bound on the corrected disparity of the best checkpoint; None for no bound.
      config: The normalized config, of which other runs' configs are made.
    """

    objectives: Mapping[str, Objective]
    students: tuple[StudentRecipe, ...]
    is_population: bool
    wave_size: int
    model: ModelRecipe
    teacher: TeacherRecipe
    optimizer: OptimizerRecipe
    finetune: FinetuneRecipe
    data: DataRecipe
    augmentation: Augmentation
    balanced_loss: bool
    batch_size: int
    epochs: int
    log_every_steps: int
    eval_every_epochs: float
    checkpoint_every_steps: int
    checkpoints: CheckpointRecipe
    tensorboard: bool
    writer: str
    max_disparity: float | None
    config: ConfigDict

    @property
    def uses_teacher(self) -> bool:
        """Whether an objective reads a teacher's outputs."""
        return any(objective.uses_teacher for objective in self.objectives.values())

    @property
    def uses_class_means(self) -> bool:
        """Whether an objective needs the teacher's mean embedding of each class."""
        return any(objective.uses_class_means for objective in self.objectives.values())

    @property
    def trains_teacher(self) -> bool:
        """Whether the run trains its teacher first."""
        return self.uses_teacher and not self.teacher.checkpoint

    def count_steps(self, num_train: int) -> int:
        """Returns the length of the training in steps.

        Args:
          num_train: Number of training images.
        """
        return count_steps(self.epochs, num_train, self.batch_size)


def parse_recipe(config: ConfigDict) -> Recipe:
    """Reads a config.

    Args:
      config: A config with every key of the default one.

    Raises:
      UsageError: A value is wrong, in one line that names the key.
    """
    config = normalize(config)
    check_values(config)
    objectives = make_objectives(config)
    for name in objectives:
        if name not in config or "weight" not in config[name]:
            raise UsageError(f"objective {name!r} has no {name}.weight in the config; add the section")
    if config.cross_entropy.balanced and "cross_entropy" not in objectives:
        raise UsageError("cross_entropy.balanced needs cross_entropy in objectives")
    check_weights({name: config[name].weight for name in objectives})
    students = tuple(make_students(config))
    for student in students:
        check_weights(student.weights)
    check_finite(config)
    for name, objective in objectives.items():
        if config.batch_size < (least := objective.smallest_batch):
            raise UsageError(f"batch_size={config.batch_size} is too small for {name}; use {least} or more")
    return Recipe(
        objectives=objectives,
        students=students,
        is_population=bool(students[0].name),
        wave_size=config.population.wave_size,
        model=parse_model(config.student),
        teacher=TeacherRecipe(parse_model(config.teacher), config.teacher.checkpoint, config.teacher.epochs),
        optimizer=parse_section(OptimizerRecipe, config.optimizer),
        finetune=parse_section(FinetuneRecipe, config.finetune),
        checkpoints=parse_section(CheckpointRecipe, config.checkpoints),
        data=parse_data(config.data),
        augmentation=parse_augmentation(config.augment),
        balanced_loss=config.cross_entropy.balanced,
        max_disparity=config.best.max_disparity,
        config=config,
        **{key: config[key] for key in _RUN_KEYS},
    )
