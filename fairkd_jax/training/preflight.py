"""What the start of a run would refuse, found without preparing data and without training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fairkd_jax.data.catalog import make_plan
from fairkd_jax.data.layout import find_prepared_folder, get_default_directory, is_prepared
from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.recipe.parse import Recipe
from fairkd_jax.recipe.sections import DataRecipe
from fairkd_jax.runs.dataset import describe_data, keep_recorded, open_data
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.runs.loading import check_trained_on
from fairkd_jax.training.checks import check_batch_size, check_data
from fairkd_jax.training.growth import list_new_models
from fairkd_jax.training.pretrained import check_first_weights
from fairkd_jax.user_paths import parse_path


class Preflight:
    """Checks of many runs, in which the same data are opened once."""

    def __init__(self) -> None:
        """Starts with no data."""
        self._classes: dict[str, tuple[str, ...]] = {}
        self._num_train: dict[str, int | None] = {}
        self._datasets: dict[str, Dataset] = {}

    def check(self, recipe: Recipe, folders: Sequence[Path], teacher: Path) -> None:
        """Checks data, pretrained files and a given teacher of a run, as far as they are there.

        Data that are not prepared yet are checked as far as their names go.

        Args:
          recipe: The recipe of the run, which `check_recipe` accepts.
          folders: Folders of the students, which may hold an earlier start of the run.
          teacher: Folder of the teacher.

        Raises:
          UsageError: The start of the run would be refused.
        """
        given = Path(recipe.teacher.checkpoint) if recipe.teacher.checkpoint else None
        data = dataclasses.replace(keep_recorded(recipe.data, folders, given), cache="none")
        classes, dataset = self._open(data)
        new = list_new_models(recipe, folders, teacher)
        if dataset is None:
            if (listed := self._num_train[repr(data)]) is not None:
                check_batch_size(recipe, listed)
            check_first_weights(recipe, new, classes)
            if recipe.uses_teacher and given:
                read_run_config(given)
            return
        check_data(recipe, dataset, new)
        check_batch_size(recipe, len(dataset.split("train")))
        if recipe.uses_teacher and given:
            check_trained_on(given, read_run_config(given), describe_data(dataset))

    def _open(self, data: DataRecipe) -> tuple[tuple[str, ...], Dataset | None]:
        """Returns the names of the classes, and the data set where it is prepared."""
        key = repr(data)
        if key not in self._classes:
            plan = make_plan(
                data.name,
                source=data.source,
                size=data.size,
                resize=data.resize,
                quality=data.quality,
                max_file_mib=data.max_file_mib,
                options=data.options,
            )
            root = parse_path(data.directory or get_default_directory()).absolute()
            self._classes[key], self._num_train[key] = plan.class_names, plan.num_train
            if is_prepared(find_prepared_folder(plan, root)):
                self._datasets[key] = open_data(data)
            elif plan.check_copies and data.by_content and not data.allow_duplicates:
                plan.check_copies()
        return self._classes[key], self._datasets.get(key)
