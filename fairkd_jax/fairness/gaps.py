"""Gaps in recall between groups and their expected size by chance, in numpy float64."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]

HALF_NORMAL_MEAN = float(np.sqrt(2.0 / np.pi))  # E|N(0, 1)|
_CLASS_WEIGHT = 20  # images of the class that each cell borrows in `compute_shrunken_variance`


class Gaps(NamedTuple):
    """Differences in recall between the two groups of every pair; NaN where not estimable.

    Attributes:
      pairs: The P pairs (a, b) of groups with a < b.
      difference: Recall in a minus recall in b, float64 [P, C].
      variance: Unbiased estimate of the sampling variance of `difference`, float64 [P, C].
    """

    pairs: list[tuple[int, int]]
    difference: Floats
    variance: Floats


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Divides elementwise; NaN where the denominator is not positive."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def compute_gaps(correct: NDArray[np.generic], total: NDArray[np.generic], min_count: int) -> Gaps:
    """Computes the gap in recall of every pair of groups within every class.

    Args:
      correct: Examples of the class that were recognised, [G, C].
      total: Examples of the class, [G, C].
      min_count: Smallest number of examples in a cell that is compared; at least 2, for the variance.

    Returns:
      The gaps, NaN where one of the two cells is too small.
    """
    recall = divide(correct, total)
    variance = divide(recall * (1.0 - recall), np.asarray(total) - 1.0)
    enough = np.asarray(total) >= min_count
    pairs, first, second = list_pairs(len(recall))
    return Gaps(
        pairs,
        compute_differences(recall, enough),
        np.where(enough[first] & enough[second], variance[first] + variance[second], np.nan),
    )


def compute_shrunken_variance(
    correct: NDArray[np.generic], total: NDArray[np.generic], enough: NDArray[np.bool_]
) -> Floats:
    """Computes the sampling variance of each cell's recall, shrunk toward the variance of the class.

    The plain estimate r (1 - r) / (n - 1) is unbiased, but little more than a guess where n is small. The
    estimate is 0 where r is 0 or 1. An interval of the mean |gap| with plain estimates is too narrow: with
    cells of 2 to 107 images an interval of 95 % covers 88 %.

    The shrunken variance of one image is a weighted mean. The variance of the cell has the weight n, and the
    variance of the class over all groups has the weight 20. The result is unbiased where groups do not
    differ, and slightly too large where groups differ much.

    Args:
      correct: Examples of the class that were recognised, [G, C].
      total: Examples of the class, [G, C].
      enough: Cells to compute the variance of, bool [G, C].

    Returns:
      Variances, float64 [G, C]; 0 in all other cells.
    """
    hits, sizes = np.where(enough, correct, 0.0), np.where(enough, total, 0.0)

    def compute_image_variance(hits: Floats, sizes: Floats) -> Floats:
        share = divide(hits, sizes)
        return divide(share * (1.0 - share) * sizes, sizes - 1.0)

    own = compute_image_variance(hits, sizes)
    of_class = compute_image_variance(hits.sum(axis=0), sizes.sum(axis=0))
    mixed = divide(sizes * own + _CLASS_WEIGHT * of_class, sizes + _CLASS_WEIGHT)
    return np.where(enough, divide(mixed, sizes), 0.0)


def list_pairs(groups: int) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Lists all pairs (a, b) of groups with a < b, then all first members, then all second members."""
    pairs = list(combinations(range(groups), 2))
    return pairs, [a for a, _ in pairs], [b for _, b in pairs]


def compute_differences(recall: Floats, enough: NDArray[np.bool_]) -> Floats:
    """Computes the recall of the first group minus the recall of the second group for every pair.

    Args:
      recall: Recalls, float64 [..., G, C].
      enough: Whether a cell has enough examples, bool [G, C].

    Returns:
      Differences, float64 [..., P, C]; NaN where one of the two cells does not have enough examples.
    """
    _, first, second = list_pairs(len(enough))
    return np.where(enough[first] & enough[second], recall[..., first, :] - recall[..., second, :], np.nan)


def compute_mean_abs_gap(correct: Floats, total: ArrayLike, min_count: int = 2) -> Floats:
    """Computes the mean |gap| over all classes of all pairs of groups, for many test sets.

    Args:
      correct: Examples that were recognised, float64 [..., G, C].
      total: Examples, [G, C].
      min_count: Smallest number of examples in a cell that is compared.

    Returns:
      Means, float64 [...]; NaN where no class has two groups to compare.
    """
    sizes = np.asarray(total)
    recall = divide(correct, np.broadcast_to(sizes, correct.shape))
    gaps = np.abs(compute_differences(recall, sizes >= min_count))
    usable = np.isfinite(gaps)
    return divide(np.where(usable, gaps, 0.0).sum(axis=(-2, -1)), usable.sum(axis=(-2, -1)))


def compute_chance_floor(variance: Floats) -> float:
    """Computes the mean |gap| that sampling alone would show: the mean of sqrt(2 V / pi).

    Args:
      variance: Sampling variances V of the gaps that enter the mean, float64 [N].

    Returns:
      The floor; NaN for an empty array.
    """
    return float(HALF_NORMAL_MEAN * np.mean(np.sqrt(variance))) if variance.size else float("nan")


def compute_corrected_mean_abs_gap(difference: Floats, variance: Floats) -> float:
    """Computes the mean |true gap|, corrected for sampling noise.

    True gaps are modelled as N(0, t^2), so observed gaps are N(0, t^2 + V). The standard deviation t solves
    mean sqrt(2 / pi) sqrt(t^2 + V) = mean |d|.

    Args:
      difference: Observed gaps d, float64 [N].
      variance: Sampling variances V of the gaps, float64 [N].

    Returns:
      sqrt(2 / pi) t; 0 where the observed mean does not exceed the floor; NaN for an empty array.
    """
    if not difference.size:
        return float("nan")
    observed = float(np.mean(np.abs(difference)))
    if observed <= compute_chance_floor(variance):
        return 0.0

    def compute_excess(t: float) -> float:
        return HALF_NORMAL_MEAN * float(np.mean(np.sqrt(t * t + variance))) - observed

    # Noise makes t smaller than observed / HALF_NORMAL_MEAN. The margin is for rounding.
    upper = observed / HALF_NORMAL_MEAN * (1.0 + 1e-9)
    return HALF_NORMAL_MEAN * float(brentq(compute_excess, 0.0, upper, xtol=1e-15))


def compute_mean_squared_gap(difference: Floats, variance: Floats) -> float:
    """Computes the unbiased estimate of the mean squared true gap, mean(d^2 - V).

    Args:
      difference: Observed gaps d, float64 [N].
      variance: Sampling variances V of the gaps, float64 [N].

    Returns:
      The estimate, which may be negative; NaN for an empty array.
    """
    return float(np.mean(difference**2 - variance)) if difference.size else float("nan")
