"""Everything that one run works with, from its recipe to its teacher."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.recipe.objectives import describe_objectives
from fairkd_jax.recipe.parse import Recipe
from fairkd_jax.recipe.population import StudentRecipe
from fairkd_jax.runs.folder import RESTARTS, check_resumable, find_teacher, to_json_dict, write_run_config
from fairkd_jax.runs.loading import LoadedModel
from fairkd_jax.runs.paths import RunFolder


@dataclass(frozen=True)
class RunContext:
    """One run: its folder, its recipe and the objects that its training needs.

    Attributes:
      workdir: The run's folder.
      recipe: The meaning of the run's config.
      dataset: The prepared data set.
      data_info: The description of the data and, once it is known, of the teacher.
      devices: The devices of the run; None for all devices.
      name: Text in front of the progress lines.
      teacher: The frozen teacher; None before it is loaded, and where no objective uses one.
      class_means: The teacher's mean embedding of each class, float [C, E]; None where no objective needs it.
      restarts: Steps at which the schedule begins anew, ascending.
    """

    workdir: Path
    recipe: Recipe
    dataset: Dataset
    data_info: dict[str, Any] = field(default_factory=dict)
    devices: Sequence[jax.Device] | None = None
    name: str = "student"
    teacher: LoadedModel | None = None
    class_means: np.ndarray | None = None
    restarts: tuple[int, ...] = ()

    @property
    def teacher_folder(self) -> Path:
        """The folder of the teacher's run."""
        return find_teacher(self.recipe.teacher.checkpoint, self.workdir)

    def find_folder(self, student: StudentRecipe) -> Path:
        """Returns the folder of a student."""
        return find_student_folder(student, self.workdir)

    def with_teacher(self, teacher: LoadedModel, class_means: np.ndarray | None) -> "RunContext":
        """Returns the run with its teacher, whose fingerprint then belongs to the run's identity."""
        identity = {
            "architecture": teacher.architecture,
            "step": teacher.step,
            "fingerprint": teacher.compute_fingerprint(),
        }
        data_info = self.data_info | {"teacher": identity}
        return dataclasses.replace(self, teacher=teacher, class_means=class_means, data_info=data_info)

    def make_config(self, student: StudentRecipe) -> dict[str, Any]:
        """Returns the config of a student's own run, as JSON has it."""
        config = to_json_dict(student.config)
        if self.recipe.is_population and self.teacher is not None:
            config["teacher"]["checkpoint"] = str(self.teacher_folder.absolute())
        return config

    def check_resumable(self) -> None:
        """Checks that the folder of each student is empty or holds this run.

        Raises:
          UsageError: A folder belongs to another run.
        """
        for student in self.recipe.students:
            check_resumable(self.find_folder(student), self.make_config(student), self.data_info)

    def write_configs(self) -> None:
        """Writes the config of each student into its folder, in the first process.

        Raises:
          UsageError: A folder belongs to another run, or cannot be written to.
        """
        self.check_resumable()
        if jax.process_index():
            return
        methods = describe_objectives(self.recipe.objectives)
        data_info = self.data_info | ({RESTARTS: list(self.restarts)} if self.restarts else {})
        for student in self.recipe.students:
            folder, config = self.find_folder(student), self.make_config(student)
            write_run_config(folder, config, data_info, methods)


def find_student_folder(student: StudentRecipe, workdir: Path) -> Path:
    """Returns the folder of a student: the run's folder, or one below it for a member of a population."""
    return RunFolder(workdir).members / student.name if student.name else workdir


def find_teacher_folder(recipe: Recipe, workdir: Path) -> Path | None:
    """Returns the folder of a run's teacher; None where no objective uses a teacher."""
    return find_teacher(recipe.teacher.checkpoint, workdir) if recipe.uses_teacher else None
