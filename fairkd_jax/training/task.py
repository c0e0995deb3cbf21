"""What a run has to know about its data, and whether its objectives are defined for them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fairkd_jax.data.pipeline import Dataset, Split
from fairkd_jax.data.plan import SPLITS
from fairkd_jax.data.sampling import balanced_counts
from fairkd_jax.errors import UsageError
from fairkd_jax.models import read_pretrained
from fairkd_jax.objectives import Spec
from fairkd_jax.training.config import make_objectives, uses_teacher


def task_of(dataset: Dataset) -> dict[str, Any]:
    """What a later reader of a run has to know about its data."""
    info = dataset.info
    return {
        "dataset": info.name,
        "class_names": list(info.class_names),
        "group_names": list(info.group_names),
        "num_examples": dict(info.num_examples),
        "digests": {split: dataset.split(split).digest() for split in info.num_examples},
    }


def spec_of(
    dataset: Dataset,
    *,
    student_width: int,
    teacher_width: int,
    class_means: np.ndarray | None,
    balanced: bool,
) -> Spec:
    """What the objectives have to know of the data and the models."""
    counts = np.asarray(dataset.split("train").counts)
    return Spec(
        num_classes=len(dataset.info.class_names),
        num_groups=len(dataset.info.group_names),
        student_width=student_width,
        teacher_width=teacher_width,
        group_counts=balanced_counts(counts) if balanced else counts,
        class_means=class_means,
    )


def check_task(config: ConfigDict, dataset: Dataset) -> None:
    """Finds out whether objectives and choice are defined for the data, before a teacher is trained for them.

    Raises:
      UsageError: one is not.
    """
    absent = [split for split in SPLITS if split not in dataset.info.num_examples]
    if absent:
        raise UsageError(f"{dataset.info.name} has no images in {' and '.join(absent)}, which a run needs")
    trained_here = [config.student]
    if uses_teacher(config) and not config.teacher.checkpoint:
        trained_here.append(config.teacher)
    for section in trained_here:
        if section.pretrained:
            classes = len(dataset.info.class_names)
            read_pretrained(section.architecture, section.pretrained, num_classes=classes)
    if config.best.max_disparity is not None:
        _check_comparable(dataset.split("val").counts)
    known = np.count_nonzero(dataset.split("train").counts.sum(axis=1))
    switches = {
        "group_heads": any(section.group_heads for section in trained_here),
        "data.balance_groups": config.data.balance_groups,
        "cross_entropy.balanced": config.cross_entropy.balanced,
        "data.control": config.data.control != "none",
    }
    mixed = (dataset.split("train").counts > 0).sum(axis=0).max(initial=0)
    for name, on in switches.items():
        if on and known > 1 and mixed < 2:
            raise UsageError(f"{name} needs a class with training images of two known groups; there is none")
        if on and known < 2:
            raise UsageError(
                f"{name} needs training images of at least two known groups; {dataset.info.name} has {known}"
            )
    objectives = make_objectives(config)
    if any(objective.uses_class_means for objective in objectives.values()):
        check_classes(dataset.split("train"), dataset.info.class_names)
    # Widths that stand for any: what can be wrong with the data does not depend on them.
    means = np.ones((len(dataset.info.class_names), 1))
    spec = spec_of(dataset, student_width=1, teacher_width=1, class_means=means, balanced=False)
    for objective in objectives.values():
        jax.eval_shape(lambda key, init=objective.init: init(key, spec), jax.random.key(0))


def check_classes(split: Split, class_names: Sequence[str]) -> None:
    """Checks that every class has training images.

    Raises:
      UsageError: names the classes that have none.
    """
    counts = np.bincount(split.labels, minlength=len(class_names))
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        raise UsageError(
            f"there is no mean embedding of a class without training images: {', '.join(absent)};"
            " take it out of the classes or add images"
        )


def _check_comparable(counts: np.ndarray) -> None:
    """Checks that some class of the validation split has two groups to compare."""
    if not ((counts >= 2).sum(axis=0) >= 2).any():
        raise UsageError(
            "best.max_disparity needs a class with at least 2 validation images in each of two groups"
        )
