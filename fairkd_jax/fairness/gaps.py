"""Gaps in recall between groups, and what of them chance alone would show. All in numpy float64."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]

# E|N(0, 1)|
HALF_NORMAL = float(np.sqrt(2.0 / np.pi))
_BORROWED = 20  # images' worth of the class that a cell's variance is mixed with, in `steady_variance`


class Gaps(NamedTuple):
    """Differences in recall between the two groups of every pair; NaN where not estimable.

    Attributes:
      pairs: The P pairs (a, b) of groups with a < b.
      difference: [P, C], recall in a minus recall in b.
      variance: [P, C], the unbiased estimate of the sampling variance of `difference`.
    """

    pairs: list[tuple[int, int]]
    difference: Floats
    variance: Floats


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Elementwise quotient, NaN where the denominator is not positive."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def pairwise_gaps(correct: NDArray[np.generic], total: NDArray[np.generic], min_count: int) -> Gaps:
    """Compares every pair of groups within every class.

    Args:
      correct: [G, C], examples of the class that were recognised.
      total: [G, C], examples of the class.
      min_count: Cells with fewer examples are not compared; at least 2, for the variance.

    Returns:
      The gaps, NaN where one of the two cells is too small.
    """
    recall = divide(correct, total)
    variance = divide(recall * (1.0 - recall), np.asarray(total) - 1.0)
    enough = np.asarray(total) >= min_count
    pairs, first, second = pairs_of(len(recall))
    return Gaps(
        pairs,
        differences(recall, enough),
        np.where(enough[first] & enough[second], variance[first] + variance[second], np.nan),
    )


def steady_variance(
    correct: NDArray[np.generic], total: NDArray[np.generic], enough: NDArray[np.bool_]
) -> Floats:
    """Sampling variance of the recall of every cell, steadied by that of its class.

    r (1 - r) / (n - 1) is unbiased, and all but a guess where n is small: 0 where r is 0 or 1. An interval of
    the mean |gap| made with it is too narrow (one of 95 % covers 88 % with cells of 2 to 107 images). The
    variance of one image is here the mean of the cell's own, n times, and its class's over all groups, 20
    times: unbiased, too, where groups do not differ, and a little too large where they differ much.

    Args:
      correct: [G, C], examples of the class that were recognised.
      total: [G, C], examples of the class.
      enough: [G, C], the cells in question.

    Returns:
      [G, C]; 0 in other cells.
    """
    hits, sizes = np.where(enough, correct, 0.0), np.where(enough, total, 0.0)

    def of_one_image(hits: Floats, sizes: Floats) -> Floats:
        share = divide(hits, sizes)
        return divide(share * (1.0 - share) * sizes, sizes - 1.0)

    own, of_class = of_one_image(hits, sizes), of_one_image(hits.sum(axis=0), sizes.sum(axis=0))
    mixed = divide(sizes * own + _BORROWED * of_class, sizes + _BORROWED)
    return np.where(enough, divide(mixed, sizes), 0.0)


def pairs_of(groups: int) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """All pairs (a, b) of groups with a < b; and their first and their second members."""
    pairs = list(combinations(range(groups), 2))
    return pairs, [a for a, _ in pairs], [b for _, b in pairs]


def differences(recall: Floats, enough: NDArray[np.bool_]) -> Floats:
    """Recall of the first minus the second group of every pair, NaN where one of the two is not `enough`.

    Args:
      recall: [..., G, C].
      enough: [G, C].

    Returns:
      [..., P, C].
    """
    _, first, second = pairs_of(len(enough))
    return np.where(enough[first] & enough[second], recall[..., first, :] - recall[..., second, :], np.nan)


def mean_abs_gap(correct: Floats, total: ArrayLike, min_count: int = 2) -> Floats:
    """Mean |gap| over all classes of all pairs of groups, for many draws: [..., G, C] -> [...]."""
    sizes = np.asarray(total)
    recall = divide(correct, np.broadcast_to(sizes, correct.shape))
    gaps = np.abs(differences(recall, sizes >= min_count))
    usable = np.isfinite(gaps)
    return divide(np.where(usable, gaps, 0.0).sum(axis=(-2, -1)), usable.sum(axis=(-2, -1)))


def chance_floor(variance: Floats) -> float:
    """Mean |gap| that sampling alone would show: the mean of sqrt(2 V / pi).

    Args:
      variance: [N] of the gaps that enter the mean.

    Returns:
      The floor; NaN for an empty list.
    """
    return float(HALF_NORMAL * np.mean(np.sqrt(variance))) if variance.size else float("nan")


def corrected_mean_abs(difference: Floats, variance: Floats) -> float:
    """Mean |true gap|, with sampling noise taken out.

    True gaps are modelled as N(0, t^2), so that what is seen is N(0, t^2 + V): t solves
    mean sqrt(2 / pi) sqrt(t^2 + V) = mean |d|.

    Args:
      difference: [N] observed gaps.
      variance: [N] their sampling variances.

    Returns:
      sqrt(2 / pi) t; 0 where the observed mean does not exceed the floor; NaN for an empty list.
    """
    if not difference.size:
        return float("nan")
    observed = float(np.mean(np.abs(difference)))
    if observed <= chance_floor(variance):
        return 0.0

    def excess(t: float) -> float:
        return HALF_NORMAL * float(np.mean(np.sqrt(t * t + variance))) - observed

    # Without noise t would be observed / HALF_NORMAL; with noise it is smaller. The margin absorbs rounding.
    return HALF_NORMAL * float(brentq(excess, 0.0, observed / HALF_NORMAL * (1.0 + 1e-9), xtol=1e-15))


def mean_squared_gap(difference: Floats, variance: Floats) -> float:
    """Unbiased estimate of the mean squared true gap, mean(d^2 - V); may be negative; NaN if empty."""
    return float(np.mean(difference**2 - variance)) if difference.size else float("nan")
