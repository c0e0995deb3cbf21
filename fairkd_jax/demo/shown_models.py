"""The models that the demo compares: the teacher, and the students without and with debiasing."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from absl import logging

from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.evaluation.evaluate import describe_method
from fairkd_jax.evaluation.prediction import Predictor
from fairkd_jax.models import num_parameters
from fairkd_jax.recipe.objectives import removes_bias
from fairkd_jax.report.tables import format_method
from fairkd_jax.runs.folder import find_teacher, read_run_config
from fairkd_jax.runs.loading import load_run
from fairkd_jax.runs.paths import RunFolder

_BYTES = 4  # of a parameter in a checkpoint
_TIMED = 5  # answers to one image; a single one may be slowed down by something else


@dataclass(frozen=True)
class ShownModel:
    """A model that the demo shows.

    Attributes:
      title: What the model is among the models of the demo.
      folder: Folder of its run.
      is_student: Whether the model is a student, and not a teacher.
      is_debiased: Whether its training removed bias.
      method: Objectives of its training.
      architecture: Name of the network.
      parameters: Number of parameters.
      predictor: The compiled model.
    """

    title: str
    folder: Path
    is_student: bool
    is_debiased: bool
    method: str
    architecture: str
    parameters: int
    predictor: Predictor

    @property
    def megabytes(self) -> float:
        """Size of the parameters as float32, in units of 1e6 bytes."""
        return self.parameters * _BYTES / 1e6

    def answer(self, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """Answers to one image.

        Args:
          pixels: Pixels, uint8 [S, S, 3].

        Returns:
          Probabilities, float32 [C], and the milliseconds that an answer takes: the median of several.
        """
        seconds = []
        for _ in range(_TIMED):
            start = time.perf_counter()
            found = self.predictor.predict(pixels[np.newaxis])
            seconds.append(time.perf_counter() - start)
        return found.probabilities[0], 1e3 * statistics.median(seconds)


def load_shown_models(runs: Sequence[Path]) -> list[ShownModel]:
    """Loads the models of the demo: each teacher once, and then the students.

    Args:
      runs: Folders of finished runs on the same data. The run without debiasing in a run's folder `baseline`
        counts too.

    Raises:
      UsageError: A folder holds no finished run, or the runs were trained on different data.
    """
    students = list(_list_students(runs))
    first = read_run_config(runs[0])
    folders = list({folder.resolve(): folder for folder in [*_find_teachers(students), *students]}.values())
    mesh = make_mesh(jax.devices()[:1])
    known = {folder.resolve() for folder in students}
    models = []
    for folder in folders:
        loaded, saved = load_run(folder, "best", first.data_info, mesh), read_run_config(folder)
        models.append(
            ShownModel(
                title="",
                folder=folder,
                is_student=folder.resolve() in known,
                is_debiased=removes_bias(saved.config, saved.methods),
                method=format_method(describe_method(folder)),
                architecture=loaded.architecture,
                parameters=num_parameters(loaded.variables["params"]),
                predictor=Predictor(loaded, batch_size=1),
            )
        )
    return _name_models(models)


def _list_students(runs: Sequence[Path]) -> Iterable[Path]:
    """Yields the folders of the students, each after the run without debiasing below it."""
    for run in runs:
        baseline = RunFolder(run).baseline
        if RunFolder(baseline).is_run():
            yield baseline
        yield run


def _find_teachers(students: Iterable[Path]) -> list[Path]:
    """Finds the folder of each teacher once, wherever the students' configs say it is."""
    found: dict[str, Path] = {}
    for folder in students:
        saved = read_run_config(folder)
        if "teacher" in saved.data_info:
            fingerprint = saved.data_info["teacher"]["fingerprint"]
            teacher = find_teacher(saved.config["teacher"]["checkpoint"], folder)
            if RunFolder(teacher).is_run():
                found.setdefault(fingerprint, teacher)
            elif fingerprint not in found:
                logging.warning("The teacher of %s is not shown: there is no run in %s", folder, teacher)
    return list(found.values())


def _name_models(models: Sequence[ShownModel]) -> list[ShownModel]:
    """Gives each model a title; models of one kind get the names of their folders too."""
    kinds = [_name_kind(model) for model in models]
    return [
        replace(model, title=kind if kinds.count(kind) == 1 else f"{kind}, {model.folder}")
        for model, kind in zip(models, kinds, strict=True)
    ]


def _name_kind(model: ShownModel) -> str:
    if not model.is_student:
        return "teacher"
    return "student, debiased" if model.is_debiased else "student, not debiased"
