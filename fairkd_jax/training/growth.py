"""What changes where a run goes on with more epochs: its schedule, and whether it needs its first weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fairkd_jax.distributed import broadcast_from_host0
from fairkd_jax.engine.optimizers import make_run_schedule
from fairkd_jax.recipe.parse import Recipe
from fairkd_jax.recipe.sections import ModelRecipe
from fairkd_jax.runs.folder import RESTARTS, read_run_config
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.status import count_run_steps, find_saved_step, has_checkpoint


def list_new_models(recipe: Recipe, students: Iterable[Path], teacher: Path) -> list[ModelRecipe]:
    """Lists the models that a run trains and that have no checkpoint: they still need their pretrained files.

    Args:
      recipe: The recipe of the run.
      students: Folders of its students.
      teacher: Folder of its teacher.
    """
    folders = {id(recipe.model): (recipe.model, tuple(students))}
    if recipe.trains_teacher:
        folders[id(recipe.teacher.model)] = (recipe.teacher.model, (teacher,))
    return [
        model
        for model, own in folders.values()
        if not broadcast_from_host0(all(has_checkpoint(folder) for folder in own))
    ]


def find_restarts(recipe: Recipe, folders: Sequence[Path]) -> tuple[tuple[int, ...], int]:
    """Finds the steps at which the schedule of a run begins anew.

    Args:
      recipe: The recipe of this start.
      folders: Folders that may hold an earlier start; the first run counts.

    Returns:
      The steps, ascending; and the former length of a run that is made longer without such a step, else 0.
    """
    found = next((folder for folder in folders if RunFolder(folder).is_run()), None)
    if found is None:
        return (), 0
    saved = read_run_config(found)
    restarts = tuple(saved.data_info.get(RESTARTS, ()))
    length = count_run_steps(saved)
    grows = 0 < length < recipe.count_steps(saved.data_info["num_examples"]["train"])
    if grows and recipe.optimizer.restart:
        return (*restarts, length), 0
    return restarts, length if grows and find_saved_step(found, "last") else 0


def describe_jump(
    recipe: Recipe, restarts: tuple[int, ...], former: int, total: int, steps_per_epoch: float
) -> str:
    """Describes the jump of the learning rate where a run is made longer; empty where there is none.

    Args:
      recipe: The recipe of the run.
      restarts: Steps at which the schedule begins anew.
      former: Former length in steps; 0 for a run that is not made longer.
      total: Length in steps.
      steps_per_epoch: Number of steps in an epoch.
    """
    if not former:
        return ""
    old, new = (
        float(make_run_schedule(recipe.optimizer, steps, steps_per_epoch, restarts)(former - 1))
        for steps in (former, total)
    )
    if new <= old * 1.01:
        return ""
    return (
        f"the learning rate at step {former} jumps from {old:.2g} to {new:.2g}: its schedule now ends at step"
        f" {total}; --config.optimizer.restart=True begins a schedule over the added epochs"
    )
