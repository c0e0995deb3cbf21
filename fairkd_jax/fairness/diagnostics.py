"""Signs of two failures of debiasing: collapse and over-correction."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, divide, list_pairs

_MAX_STANDARD_ERRORS = 2.0  # a mean gap this many standard errors below 0 is an over-correction
_MIN_ENTROPY_RATIO = 0.8  # predictions with less than this share of the labels' entropy are a collapse


def diagnose(
    counts: ArrayLike, training_counts: ArrayLike, *, min_count: int = 2, small_count: int = 10
) -> dict[str, Any]:
    """Finds signs of collapse and over-correction in the counts of one model.

    Training images can be skewed: a class has a larger share of one group's images than of another group's.
    A model that learns this skew recognises the class better in the first group. The skew-aligned gap is the
    recall in the first group minus the recall in the second, and is above 0 for such a model. Debiasing
    should bring the gap to 0. A gap below 0 is an over-correction.

    Args:
      counts: Counts from `group_counts`, int [G + 1, C, C].
      training_counts: Training images by known group and class, int [G, C].
      min_count: Smallest number of images in a cell (a group and a class) that is compared.
      small_count: Smallest number of images of a class that should be among the predictions.

    Returns:
      A dict of Python numbers, NaN where a number cannot be estimated:
      `classes_predicted` and `classes_present`, the numbers of classes among predictions and labels;
      `smallest_class_recall`, among the classes with `small_count` images;
      `prediction_entropy` and `label_entropy`, entropies of the class frequencies in nats;
      `skew_aligned_gap`, the mean over all classes of all pairs of groups;
      `skew_aligned_gap_error`, the standard error of this mean;
      `reversed_gaps`, the share of the gaps that are below 0;
      `warnings`, a list with a sentence for each sign.
    """
    tensor = np.asarray(counts, np.int64)
    confusion, known = tensor.sum(axis=0), tensor[:-1]
    support, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    enough = support >= small_count
    recall = divide(hits, support)[enough]
    missed = np.flatnonzero(enough & (predicted == 0))
    found: dict[str, Any] = {
        "classes_predicted": int(np.count_nonzero(predicted)),
        "classes_present": int(np.count_nonzero(support)),
        "smallest_class_recall": float(recall.min()) if recall.size else float("nan"),
        "prediction_entropy": _compute_entropy(predicted),
        "label_entropy": _compute_entropy(support),
        **_compute_skew_aligned_gap(known, np.asarray(training_counts, np.float64), min_count),
    }
    warnings = []
    if missed.size:
        warnings.append(f"collapse: {missed.size} of {np.count_nonzero(enough)} classes are never predicted")
    elif enough.any() and found["prediction_entropy"] < _MIN_ENTROPY_RATIO * found["label_entropy"]:
        warnings.append(
            f"collapse: the predictions' entropy is {found['prediction_entropy']:.2f} nats, the labels'"
            f" {found['label_entropy']:.2f}"
        )
    if found["skew_aligned_gap"] < -_MAX_STANDARD_ERRORS * found["skew_aligned_gap_error"]:
        warnings.append(
            f"over-correction: recall is {-found['skew_aligned_gap']:.3f} lower on average in the group that"
            f" a class leans to in training (standard error {found['skew_aligned_gap_error']:.3f})"
        )
    return found | {"warnings": warnings}


def _compute_entropy(numbers: NDArray[np.int64]) -> float:
    """Computes the entropy of frequencies in nats; NaN where all numbers are 0."""
    if not numbers.sum():
        return float("nan")
    shares = numbers[numbers > 0] / numbers.sum()
    return float(-np.sum(shares * np.log(shares)))


def _compute_skew_aligned_gap(known: NDArray[np.int64], training: Floats, min_count: int) -> dict[str, float]:
    """Computes the mean gap in recall, with the sign of the skew of the training images.

    Args:
      known: Counts of known groups, int64 [G, C, C].
      training: Training images by group and class, float64 [G, C].
      min_count: Smallest number of images in a cell that is compared.

    Returns:
      `skew_aligned_gap`, `skew_aligned_gap_error` and `reversed_gaps`; see `diagnose`.
    """
    total, correct = known.sum(axis=2), np.diagonal(known, axis1=1, axis2=2)
    # Smoothed: a recall of 0 or 1 in a few images does not make a gap certain.
    smooth = divide(correct + 1.0, total + 2.0)
    variance = divide(smooth * (1.0 - smooth), total)
    recall = divide(correct, total)
    share = divide(training, training.sum(axis=1, keepdims=True))
    _, first, second = list_pairs(len(known))
    enough = (total >= min_count)[first] & (total >= min_count)[second]
    skew = np.sign(np.nan_to_num(share[first] - share[second]))
    usable = enough & (skew != 0)
    number = np.count_nonzero(usable)
    if not number:
        return dict.fromkeys(("skew_aligned_gap", "skew_aligned_gap_error", "reversed_gaps"), float("nan"))
    gap = (skew * (recall[first] - recall[second]))[usable]
    # The mean is linear in the recalls, and several pairs can share a recall.
    factor = np.zeros_like(recall)
    np.add.at(factor, first, np.where(usable, skew, 0.0))
    np.add.at(factor, second, -np.where(usable, skew, 0.0))
    error = np.sqrt(np.sum(factor**2 * np.where(factor == 0, 0.0, variance))) / number
    return {
        "skew_aligned_gap": float(gap.mean()),
        "skew_aligned_gap_error": float(error),
        "reversed_gaps": float(np.mean(gap < 0)),
    }
