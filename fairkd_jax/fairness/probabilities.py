"""Measures of predicted probabilities, by group: calibration, and the ranking of images."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from fairkd_jax.fairness.gaps import Floats, divide

NUM_BINS = 15
Integers = NDArray[np.integer]


def compute_probability_measures(
    probabilities: ArrayLike, label: ArrayLike, group: ArrayLike, num_groups: int
) -> dict[str, float | list[float]]:
    """Computes the calibration error and the area under the ROC curve, for all images and by group.

    Args:
      probabilities: Predicted probabilities, float [N, C]; each row sums to 1.
      label: Labels, int [N] in [0, C).
      group: Groups, int [N]; -1 = unknown, which counts for all images alone.
      num_groups: Number of groups, G.

    Returns:
      `ece` and `auroc`, and `ece_by_group` and `auroc_by_group`, [G] each; NaN where there is no estimate.
    """
    values = np.asarray(probabilities, np.float64)
    labels, groups = np.asarray(label), np.asarray(group)
    result: dict[str, float | list[float]] = {}
    measures: dict[str, Callable[[Floats, Integers], float]] = {"ece": compute_ece, "auroc": compute_auroc}
    for name, compute in measures.items():
        result[name] = compute(values, labels)
        members = [groups == g for g in range(num_groups)]
        result[f"{name}_by_group"] = [compute(values[own], labels[own]) for own in members]
    return result


def compute_ece(probabilities: Floats, label: Integers) -> float:
    """Computes the expected calibration error of the predicted class (Guo et al. 2017, equation 3).

    Images are put into 15 equal bins of their highest probability, (0, 1/15] to (14/15, 1]. The error is the
    mean over images of the distance between accuracy and mean probability in their bin.

    Args:
      probabilities: Predicted probabilities, float64 [N, C].
      label: Labels, int [N].

    Returns:
      The error, in [0, 1]; NaN without images.
    """
    if not len(label):
        return float("nan")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == label
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    surplus = np.bincount(bins, weights=correct - confidence, minlength=NUM_BINS)
    return float(np.abs(surplus).sum() / len(label))


def compute_auroc(probabilities: Floats, label: Integers) -> float:
    """Computes the area under the ROC curve, each class against the rest, averaged over the classes.

    The area is the probability that an image of the class has a higher probability of the class than another
    image, ties counted half (Hanley and McNeil 1982). Classes without images on either side are left out.

    Args:
      probabilities: Predicted probabilities, float64 [N, C].
      label: Labels, int [N].

    Returns:
      The mean area, in [0, 1]; NaN where no class has images on both sides.
    """
    counts = np.bincount(label, minlength=probabilities.shape[1])
    usable = np.flatnonzero((counts > 0) & (counts < len(label)))
    if not usable.size:
        return float("nan")
    areas = []
    for c in usable.tolist():
        ranks, positive = rankdata(probabilities[:, c]), label == c
        positives, negatives = counts[c], len(label) - counts[c]
        surplus = ranks[positive].sum() - positives * (positives + 1) / 2
        areas.append(float(divide(surplus, positives * negatives)))
    return float(np.mean(areas))
