"""Checks of a recipe, alone and together with its data, before anything is trained."""

import fnmatch
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from fairkd_jax.data.pipeline import Dataset, Split
from fairkd_jax.data.preparation_plan import SPLITS
from fairkd_jax.data.sampling import compute_balanced_counts
from fairkd_jax.engine.optimizers import make_optimizers, make_run_schedule
from fairkd_jax.engine.sharding import check_divides
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import TaskInfo
from fairkd_jax.recipe.parse import Recipe
from fairkd_jax.recipe.sections import ModelRecipe
from fairkd_jax.training.pretrained import check_first_weights
from fairkd_jax.training.writers import import_writer, require_tensorboard

_MAX_STEPS = 100_000_000  # the learning rates of all steps are computed before the first


def list_trained_models(recipe: Recipe) -> list[ModelRecipe]:
    """Lists the models that a run trains: its student, and its teacher where none is given."""
    return [recipe.model, recipe.teacher.model] if recipe.trains_teacher else [recipe.model]


def check_recipe(recipe: Recipe) -> None:
    """Checks writers, models, optimizers and the names of frozen arrays before any data is read.

    Raises:
      UsageError: A value is wrong, in one line that names the key.
    """
    if recipe.tensorboard:
        require_tensorboard()
    if recipe.writer:
        import_writer(recipe.writer)
    schedule = make_run_schedule(recipe.optimizer, 1, 1.0)
    head = recipe.model.create(num_classes=2).head_name
    recipe.teacher.model.create(num_classes=2)
    make_optimizers(recipe.optimizer, recipe.finetune, recipe.objectives, schedule, 1.0, head=head)
    if recipe.finetune.frozen:
        models = [recipe.model] if recipe.teacher.checkpoint else [recipe.model, recipe.teacher.model]
        _check_frozen(recipe.finetune.frozen, models)


def _check_frozen(patterns: Sequence[str], models: Sequence[ModelRecipe]) -> None:
    """Checks that each pattern of frozen names matches an array, and that some array is not frozen."""
    names: list[set[str]] = []
    for recipe in models:
        image = jnp.zeros((1, 32, 32, 3))
        params = jax.eval_shape(recipe.create(num_classes=2).init, jax.random.key(0), image)["params"]
        names.append(set(flatten_dict(params, sep="/")))
    for pattern in patterns:
        if not any(fnmatch.filter(known, pattern) for known in names):
            some = ", ".join(sorted(names[0])[:3])
            raise UsageError(f"finetune.frozen: {pattern!r} matches no array; names are such as {some}")
    for known in names:
        if known == {name for pattern in patterns for name in fnmatch.filter(known, pattern)}:
            raise UsageError("finetune.frozen matches every array: nothing would be trained")


def make_task_info(
    dataset: Dataset,
    *,
    student_width: int,
    teacher_width: int,
    class_means: np.ndarray | None,
    balanced: bool,
) -> TaskInfo:
    """Makes the description of the task that objectives read.

    Args:
      dataset: The data set.
      student_width: Width of the student's embedding.
      teacher_width: Width of the teacher's embedding; 0 without a teacher.
      class_means: The teacher's mean embedding of each class, float [C, E], or None.
      balanced: Whether the groups of a class are drawn equally often.
    """
    counts = np.asarray(dataset.split("train").counts)
    return TaskInfo(
        num_classes=len(dataset.info.class_names),
        num_groups=len(dataset.info.group_names),
        student_width=student_width,
        teacher_width=teacher_width,
        group_counts=compute_balanced_counts(counts) if balanced else counts,
        class_means=class_means,
    )


def check_data(recipe: Recipe, dataset: Dataset, new: Sequence[ModelRecipe] | None = None) -> None:
    """Checks that objectives and the choice of the best checkpoint are defined for the data.

    Args:
      recipe: The recipe.
      dataset: The data.
      new: The models that have no checkpoint yet; by default all that the run trains.

    Raises:
      UsageError: The data do not allow this run.
    """
    absent = [split for split in SPLITS if split not in dataset.info.num_examples]
    if absent:
        raise UsageError(f"{dataset.info.name} has no images in {' and '.join(absent)}, which a run needs")
    steps = recipe.count_steps(dataset.info.num_examples["train"])
    if steps > _MAX_STEPS:
        raise UsageError(f"epochs={recipe.epochs} means {steps:,} steps, more than {_MAX_STEPS:,}; use fewer")
    models = list_trained_models(recipe)
    check_first_weights(recipe, models if new is None else new, dataset.info.class_names)
    if recipe.max_disparity is not None:
        _check_comparable(dataset.split("val").counts)
    _check_groups(recipe, dataset, any(model.group_heads for model in models))
    if recipe.uses_class_means:
        check_classes(dataset.split("train"), dataset.info.class_names)
    # The widths stand for any widths: errors in the data do not depend on them.
    means = np.ones((len(dataset.info.class_names), 1))
    info = make_task_info(dataset, student_width=1, teacher_width=1, class_means=means, balanced=False)
    for objective in recipe.objectives.values():
        jax.eval_shape(lambda key, init=objective.init: init(key, info), jax.random.key(0))


def _check_groups(recipe: Recipe, dataset: Dataset, group_heads: bool) -> None:
    """Checks that the training images have the groups that balancing, heads and controls need."""
    counts = dataset.split("train").counts
    known = np.count_nonzero(counts.sum(axis=1))
    mixed = (counts > 0).sum(axis=0).max(initial=0)
    switches = {
        "group_heads": group_heads,
        "data.balance_groups": recipe.data.balance_groups,
        "cross_entropy.balanced": recipe.balanced_loss,
        "data.control": recipe.data.control != "none",
    }
    for name, on in switches.items():
        if on and known > 1 and mixed < 2:
            raise UsageError(f"{name} needs a class with training images of two known groups; there is none")
        if on and known < 2:
            raise UsageError(
                f"{name} needs training images of at least two known groups; {dataset.info.name} has {known}"
            )


def check_batch(recipe: Recipe, train: Split, mesh: jax.sharding.Mesh) -> None:
    """Checks that the batch fits the devices and the data.

    Raises:
      UsageError: The batch does not divide by the devices, or is larger than the training split.
    """
    check_divides("batch_size", recipe.batch_size, mesh)
    check_batch_size(recipe, len(train))


def check_batch_size(recipe: Recipe, num_train: int) -> None:
    """Checks that the training split fills a batch.

    Args:
      recipe: The recipe.
      num_train: Number of training images.

    Raises:
      UsageError: The batch is larger than the training split.
    """
    if recipe.batch_size > num_train:
        raise UsageError(
            f"batch_size={recipe.batch_size} is more than the {num_train} training images; use {num_train} or"
            " less"
        )


def check_classes(split: Split, class_names: Sequence[str]) -> None:
    """Checks that every class has training images.

    Raises:
      UsageError: Some classes have none; the message names these classes.
    """
    counts = np.bincount(split.labels, minlength=len(class_names))
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        raise UsageError(
            f"there is no mean embedding of a class without training images: {', '.join(absent)};"
            " leave out these classes or add images"
        )


def _check_comparable(counts: np.ndarray) -> None:
    """Checks that some class of the validation split has two groups to compare."""
    if not ((counts >= 2).sum(axis=0) >= 2).any():
        raise UsageError(
            "best.max_disparity needs a class with at least 2 validation images in each of two groups"
        )
