"""An evaluated run: its identity, and its predictions on a split.

Nothing here imports JAX.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairkd_jax.digests import read_arrays
from fairkd_jax.errors import UsageError, reading
from fairkd_jax.evaluation.methods import RunIdentity, identify_run
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.runs.paths import BEST, RunFolder
from fairkd_jax.runs.status import make_eval_command, read_evaluation


class EvaluatedRun(NamedTuple):
    """An evaluated run.

    Attributes:
      folder: The folder, as it was given.
      identity: The identity of the run's method, and its seed.
      checkpoint: The evaluated checkpoint: "best", "last" or the number of a step.
      step: The step of this checkpoint; None where an earlier version has not written it.
      label: Labels, int [N] in [0, C).
      group: Groups, int [N], -1 where unknown.
      prediction: Predictions, int [N] in [0, C).
      ids: Names of the images, str [N].
    """

    folder: Path
    identity: RunIdentity
    checkpoint: str
    step: int | None
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    prediction: NDArray[np.int64]
    ids: NDArray[Any]

    @property
    def data_info(self) -> dict[str, Any]:
        """The description of the data."""
        return self.identity.config["task"]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.identity.seed


def read_run(folder: Path, split: str, checkpoint: str = BEST) -> EvaluatedRun:
    """Reads an evaluated run.

    Args:
      folder: The run's folder.
      split: "train", "val" or "test".
      checkpoint: The scored checkpoint: "best", "last" or the number of a step.

    Raises:
      UsageError: The folder holds no run, or no evaluation of the checkpoint on the split, or a file is
        damaged.
    """
    saved = read_run_config(folder)
    own, command = RunFolder(folder), make_eval_command(folder, split, checkpoint)
    evaluation, predictions = own.evaluation(split, checkpoint), own.predictions(split, checkpoint)
    if not (evaluation.exists() and predictions.exists()):
        at = "" if checkpoint == BEST else f" at its checkpoint {checkpoint}"
        raise UsageError(f"{folder} was not evaluated on {split}{at}; run `{command}` first")
    step = read_evaluation(folder, split, checkpoint)["student"].get("step")
    arrays = read_arrays(predictions, f"run `{command}` again")
    with reading(str(predictions), f"run `{command}` again"):
        if "student_step" in arrays and int(arrays["student_step"]) != step:
            raise ValueError(f"of step {arrays['student_step']}, but {evaluation.name} of step {step}")
        label, group, prediction = (
            np.asarray(arrays[name]).astype(np.int64, casting="safe")
            for name in ("label", "group", "student_prediction")
        )
        ids = np.asarray(arrays["id"])
        classes = len(saved.data_info["class_names"])
        if not (label.ndim == 1 and ids.shape == label.shape == group.shape == prediction.shape):
            raise ValueError("arrays of unequal lengths")
        if not label.size or min(label.min(), prediction.min()) < 0:
            raise ValueError("no images, or labels below 0")
        if max(label.max(), prediction.max()) >= classes:
            raise ValueError(f"labels beyond the {classes} classes")
    with reading(str(RunFolder(folder).config), "train the run again"):
        return EvaluatedRun(folder, identify_run(saved), checkpoint, step, label, group, prediction, ids)


def check_same_images(first: EvaluatedRun, other: EvaluatedRun, split: str) -> None:
    """Checks that two runs were evaluated on the same images.

    Args:
      first: An evaluated run.
      other: Another evaluated run.
      split: The split of both evaluations, for the message.

    Raises:
      UsageError: Classes, groups, images or labels differ.
    """
    for key, words in (("class_names", "classes"), ("group_names", "groups")):
        if first.data_info[key] != other.data_info[key]:
            raise UsageError(f"{first.folder} and {other.folder} have other {words}; they cannot be compared")
    for name in ("ids", "label", "group"):
        if not np.array_equal(getattr(first, name), getattr(other, name)):
            raise UsageError(
                f"{first.folder} and {other.folder} were evaluated on other {split} images, labels or"
                " groups; they cannot be compared"
            )
