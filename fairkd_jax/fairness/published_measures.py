"""The measures of group fairness that other papers print, in numpy float64.

They are here so that a result can be set beside a published one. None of them is corrected for chance: with
few images in a cell, a model without bias has values far above 0.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, divide


def compute_rate_gaps(known: NDArray[np.int64]) -> dict[str, Any]:
    """Computes gaps of selection rates and error rates between groups, each class against the rest.

    For a class c, the selection rate is the share of images that are predicted as c, the true positive rate
    (TPR) the share of the images of c, and the false positive rate (FPR) that of all other images. A gap is
    the highest minus the lowest rate of the groups that have such images.

    - SPD, statistical parity difference: gap of selection rates (Calders and Verwer 2010).
    - EOD, equal opportunity difference: gap of TPR (Hardt et al. 2016).
    - DEO, difference in equalized odds: the larger of the gaps of TPR and FPR (Hardt et al. 2016).
    - AAOD, average absolute odds difference: half the sum of both gaps (Bellamy et al. 2018).

    Args:
      known: Counts of known groups, int64 [G, C, C]: group, label, prediction.

    Returns:
      `spd`, `eod`, `deo` and `aaod`, each the mean over the classes that have it; of two classes, class 1
      alone. `per_class` holds each as [C]. NaN where fewer than two groups have a rate.
    """
    by_label, predicted = known.sum(axis=2), known.sum(axis=1)
    hits, total = np.diagonal(known, axis1=1, axis2=2), known.sum(axis=(1, 2))[:, None]
    selection = _compute_range(divide(predicted, total))
    true_positive = _compute_range(divide(hits, by_label))
    false_positive = _compute_range(divide(predicted - hits, total - by_label))
    per_class = {
        "spd": selection,
        "eod": true_positive,
        "deo": np.maximum(true_positive, false_positive),
        "aaod": 0.5 * (true_positive + false_positive),
    }
    counted = slice(1, None) if known.shape[1] == 2 else slice(None)
    means = {name: _average(values[counted]) for name, values in per_class.items()}
    return means | {"per_class": {name: values.tolist() for name, values in per_class.items()}}


def compute_cell_accuracies(known: NDArray[np.int64], training_counts: ArrayLike) -> dict[str, float]:
    """Computes accuracies that do not let a large cell, a class in a group, hide a small one.

    Args:
      known: Counts of known groups, int64 [G, C, C]: group, label, prediction.
      training_counts: Training images by group and class, [G, C]. The group with the most training images of
        a class is the one that the training skew favours; at a tie the class has no skew.

    Returns:
      `unbiased_accuracy`, the mean recall of all cells with images (Nam et al. 2020);
      `accuracy_with_skew`, of the images whose group is favoured in their class, and
      `accuracy_against_skew`, of all other images of a class with a skew. NaN where there are no images.
    """
    hits, total = np.diagonal(known, axis1=1, axis2=2), known.sum(axis=2)
    training = np.asarray(training_counts, np.float64)
    is_favoured = training == training.max(axis=0, initial=0)
    has_skew = is_favoured.sum(axis=0) == 1
    with_skew, against = is_favoured & has_skew, ~is_favoured & has_skew
    return {
        "unbiased_accuracy": _average(divide(hits, total).ravel()),
        "accuracy_with_skew": float(divide(hits[with_skew].sum(), total[with_skew].sum())),
        "accuracy_against_skew": float(divide(hits[against].sum(), total[against].sum())),
    }


def _compute_range(rates: Floats) -> Floats:
    """Computes the highest minus the lowest rate of the groups, [G, C] -> [C]; NaN with fewer than two."""
    known = np.isfinite(rates)
    highest = np.where(known, rates, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(known, rates, np.inf).min(axis=0, initial=np.inf)
    return np.subtract(highest, lowest, out=np.full(rates.shape[1], np.nan), where=known.sum(axis=0) >= 2)


def _average(values: Floats) -> float:
    """Averages the values that are numbers; NaN where none is."""
    usable = values[np.isfinite(values)]
    return float(usable.mean()) if usable.size else float("nan")
