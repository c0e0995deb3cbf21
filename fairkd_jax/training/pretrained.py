"""The pretrained file of a student: its head, and the epsilon of its norms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fairkd_jax.errors import UsageError
from fairkd_jax.models import Pretrained, read_pretrained
from fairkd_jax.recipe.parse import Recipe, parse_recipe
from fairkd_jax.recipe.sections import ModelRecipe
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.runs.paths import RunFolder


class FirstWeights(NamedTuple):
    """The weights that a training starts from.

    Attributes:
      pretrained: The content of the file.
      keeps_head: Whether the student starts with the file's head.
      reason: Why, as a phrase for the log.
    """

    pretrained: Pretrained
    keeps_head: bool
    reason: str


def read_first_weights(model: ModelRecipe, class_names: Sequence[str]) -> FirstWeights:
    """Reads the pretrained file of a model, and decides on its head.

    A head of the right size says nothing of its classes: another order, or other classes, would be learnt
    against. So `auto` keeps a head only where the file names the classes.

    Args:
      model: The model's section, with a pretrained file.
      class_names: Names of the classes of the data, in order.

    Raises:
      UsageError: The file cannot be read, does not fit the model, or has no head to keep.
    """
    found = read_pretrained(model.architecture, model.pretrained, num_classes=len(class_names))
    if found.new_head:
        reason = f"{Path(model.pretrained).name} has no head of {len(class_names)} classes"
        if model.head == "keep":
            raise UsageError(f"head='keep': {reason}; use auto or new")
        return FirstWeights(found, False, reason)
    if model.group_heads:
        return FirstWeights(found, False, "each group has a head of its own")
    if model.head != "auto":
        return FirstWeights(found, model.head == "keep", f"head={model.head}")
    if not found.class_names:
        count = len(class_names)
        text = f"the file does not name its {count} classes; head=keep would keep its head"
        return FirstWeights(found, False, text)
    if found.class_names != tuple(class_names):
        return FirstWeights(found, False, "the file names other classes, or another order")
    return FirstWeights(found, True, "the file names the same classes")


def check_first_weights(recipe: Recipe, models: Iterable[ModelRecipe], class_names: Sequence[str]) -> None:
    """Checks the pretrained files of models that begin.

    Args:
      recipe: The recipe of the run.
      models: The models.
      class_names: Names of the classes of the data.

    Raises:
      UsageError: A file cannot be read or does not fit the model; or a model that is not trained has a new
        head.
    """
    for model in models:
        if not model.pretrained:
            continue
        first = read_first_weights(model, class_names)
        is_teacher = model is recipe.teacher.model
        epochs = recipe.teacher.epochs if is_teacher else recipe.epochs
        if not epochs and not first.keeps_head:
            key, section = ("teacher.epochs", "teacher") if is_teacher else ("epochs", "student")
            raise UsageError(
                f"{key}=0 would use a new head that has learnt nothing ({first.reason}); set"
                f" {section}.head=keep, or {key} above 0"
            )


def settle_norm_epsilon(recipe: Recipe, class_names: Sequence[str], folders: Iterable[Path]) -> Recipe:
    """Writes the epsilon of the pretrained file into the recipe, where the model's own is another.

    A run of an earlier start keeps the epsilon that it has recorded.

    Args:
      recipe: The recipe.
      class_names: Names of the classes of the data.
      folders: Folders that may hold an earlier start of the run.

    Returns:
      The recipe, whose config then has the epsilon.

    Raises:
      UsageError: The file cannot be read or does not fit the model.
    """
    model = recipe.model
    if not model.pretrained or model.norm_epsilon is not None:
        return recipe
    earlier = next((folder for folder in folders if RunFolder(folder).is_run()), None)
    if earlier is not None:
        epsilon = read_run_config(earlier).config["student"]["norm_epsilon"]
    else:
        epsilon = read_first_weights(model, class_names).pretrained.norm_epsilon
    if epsilon is None:
        return recipe
    config = recipe.config.copy_and_resolve_references()
    config.student.norm_epsilon = epsilon
    return parse_recipe(config)
