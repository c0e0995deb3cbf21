"""The test images that the demo offers, by class, group, and by what debiasing changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairkd_jax.data.pipeline import Dataset, Split
from fairkd_jax.demo.shown_models import ShownModel
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluated_run import read_run

SPLIT = "test"
# Whether the student without debiasing is right, and then whether the student with debiasing is right.
CHANGES = {"mended by debiasing": (False, True), "broken by debiasing": (True, False)}


@dataclass(frozen=True)
class Examples:
    """Test images with their truth.

    Attributes:
      split: The test split.
      class_names: Names of the C classes.
      group_names: Names of the G groups.
      is_right: Whether each model is right, bool [N], by "before" and "after" debiasing; empty where the runs
        say nothing about it.
    """

    split: Split
    class_names: Sequence[str]
    group_names: Sequence[str]
    is_right: Mapping[str, np.ndarray]

    @property
    def changes(self) -> list[str]:
        """The kinds of change that can be asked for."""
        return list(CHANGES) if self.is_right else []

    def find(self, label: str | None, group: str | None, change: str | None) -> np.ndarray:
        """Finds the rows of the split, int [n].

        Args:
          label: Name of the class; None for all.
          group: Name of the group; None for all, the unknown one included.
          change: One of `changes`; None for all.
        """
        chosen = np.ones(len(self.split), bool)
        if label is not None:
            chosen &= np.asarray(self.split.labels) == self.class_names.index(label)
        if group is not None:
            chosen &= np.asarray(self.split.groups) == self.group_names.index(group)
        if change is not None:
            before, after = CHANGES[change]
            chosen &= (self.is_right["before"] == before) & (self.is_right["after"] == after)
        return np.flatnonzero(chosen)

    def describe(self, row: int) -> str:
        """Describes an image: its class and its group."""
        group = int(self.split.groups[row])
        shown = self.group_names[group] if group >= 0 else "unknown group"
        return f"{self.class_names[int(self.split.labels[row])]}, {shown}"


def collect_examples(dataset: Dataset, models: Sequence[ShownModel]) -> Examples:
    """Collects the test images of a data set, and what debiasing changed where the runs were evaluated.

    Args:
      dataset: The prepared data of the runs.
      models: The models of the demo.

    Raises:
      UsageError: The data set has no test images.
    """
    split, info = dataset.split(SPLIT), dataset.info
    return Examples(split, info.class_names, info.group_names, _find_right_answers(split, models))


def _find_right_answers(split: Split, models: Sequence[ShownModel]) -> dict[str, np.ndarray]:
    """Finds whether the students "before" and "after" debiasing are right, bool [N] each.

    Returns:
      Nothing where there is not one student of each kind, or where one was not evaluated on these images.
    """
    students = [model for model in models if model.is_student]
    if sorted(model.is_debiased for model in students) != [False, True]:
        return {}
    labels, is_right = np.asarray(split.labels), {}
    for model in students:
        try:
            run = read_run(model.folder, SPLIT)
        except UsageError:
            return {}
        if not np.array_equal(run.label, labels):
            return {}
        is_right["after" if model.is_debiased else "before"] = run.prediction == run.label
    return is_right
