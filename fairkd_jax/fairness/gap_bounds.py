"""Bounds of the mean |true gap| that assume nothing about the arrangement of the gaps, in numpy float64.

The true gaps may all have one size, or a few classes may have all the gaps.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq

from fairkd_jax.fairness.gaps import (
    HALF_NORMAL_MEAN,
    Floats,
    compute_differences,
    compute_shrunken_variance,
    divide,
    list_pairs,
)

# The lower bound subtracts a bump of this width from |d|, in standard errors of d. The height gives a gap of
# 0 the mean 0. The spread is the largest standard deviation of the result, over all true gaps.
_BUMP_WIDTH = 0.7
_BUMP_HEIGHT = HALF_NORMAL_MEAN * float(np.sqrt(1.0 + _BUMP_WIDTH**-2))
_BUMP_SPREAD = 1.32
_HALVINGS = 40  # of the range of a recall
_LARGEST_PRICE = 50.0  # logarithm; beyond it a recall moves less than the halvings can resolve
_PRICES, _SEARCHES = 40, 3  # prices of a grid, and grids, each between two prices of the one before


class _Cells(NamedTuple):
    """The cells that are compared, and the gaps between them.

    Attributes:
      recall: Recalls, float64 [G, C]; NaN where a cell is empty.
      size: Images, float64 [G, C].
      enough: Cells that are compared, bool [G, C].
      gap: Observed gaps of the pairs of groups, float64 [P, C]; NaN where a pair is not compared.
      variance: Shrunken sampling variances of the recalls, float64 [G, C]; 0 in all other cells.
      slope: Change of the mean |gap| with each recall, float64 [G, C]; 0 in all other cells.
    """

    recall: Floats
    size: Floats
    enough: NDArray[np.bool_]
    gap: Floats
    variance: Floats
    slope: Floats


def compute_gap_bounds(
    correct: ArrayLike, total: ArrayLike, enough: NDArray[np.bool_], *, level: float = 0.95
) -> tuple[float, float]:
    """Computes a lower and an upper bound of the mean |true gap| for every arrangement of the gaps.

    The lower bound rests on a function of the gap whose mean is at most the true |gap|, whatever its size:
    |d| minus a bump about 0. Its error is normal, with variances from `gaps.compute_shrunken_variance`.

    The upper bound is the smaller one of two, which hold as the mean of |d| is never below the true |gap|,
    and the mean |gap| never above the root of the mean squared gap. The first bound moves the recalls apart
    until Pearson's chi-squared reaches its limit. For one cell the result is Wilson's limit (1927), so a cell
    with all images right has an upper bound too. The second bound inverts a test of the mean squared gap.

    Args:
      correct: Examples that were recognised, int [G, C].
      total: Examples, int [G, C]; 2 or more in each cell that is compared.
      enough: Cells that are compared, bool [G, C]; see `inference.find_comparable_cells`.
      level: Level of the two-sided interval whose tail the lower bound has, and of the one-sided upper bound.

    Returns:
      Lower and upper bound, both within [0, 1], and the upper one above 0. NaN where no class has two groups
      to compare.
    """
    hits, sizes = np.asarray(correct, np.int64), np.asarray(total, np.int64)
    if not (enough.sum(axis=0) >= 2).any():
        return float("nan"), float("nan")
    cells = _describe_cells(hits, sizes, enough)
    lower = _compute_lower_bound(cells, float(stats.norm.ppf(0.5 + 0.5 * level)))
    one_sided = float(stats.norm.ppf(level))
    upper = min(_bound_by_recalls(cells, one_sided), _bound_by_squares(cells, one_sided))
    return min(max(lower, 0.0), 1.0), min(upper, 1.0)


def _describe_cells(hits: NDArray[np.int64], sizes: NDArray[np.int64], enough: NDArray[np.bool_]) -> _Cells:
    """Computes recalls, gaps, variances and slopes."""
    recall = divide(hits, sizes)
    gap = compute_differences(recall, enough)
    _, first, second = list_pairs(len(sizes))
    usable = np.isfinite(gap)
    # Equal recalls may differ either way. The way is chosen in which the smaller cell has more room.
    first_lower = (recall[first] >= 0.5) == (sizes[first] <= sizes[second])
    sign = np.where(usable, np.where(gap == 0.0, np.where(first_lower, -1.0, 1.0), np.sign(gap)), 0.0)
    slope = np.zeros(sizes.shape)
    np.add.at(slope, first, sign)
    np.add.at(slope, second, -sign)
    variance = compute_shrunken_variance(hits, sizes, enough)
    return _Cells(recall, sizes.astype(float), enough, gap, variance, slope / np.count_nonzero(usable))


def _compute_lower_bound(cells: _Cells, z: float) -> float:
    """Computes the lower bound with the normal quantile z; it may be below 0."""
    _, first, second = list_pairs(len(cells.recall))
    usable = np.isfinite(cells.gap)
    error = np.sqrt(cells.variance[first] + cells.variance[second])[usable]
    gap = np.abs(cells.gap[usable])
    # Without a variance all recalls of the class are 0 or 1, and the gap is 0.
    ratio = np.divide(gap, error, out=np.zeros_like(gap), where=error > 0.0)
    estimate = np.mean(gap - error * _BUMP_HEIGHT * np.exp(-0.5 * (ratio / _BUMP_WIDTH) ** 2))
    spread = _BUMP_SPREAD * np.sqrt(np.sum(cells.slope**2 * cells.variance))
    return float(estimate - z * spread)


def _bound_by_recalls(cells: _Cells, z: float) -> float:
    """Computes the largest mean |gap| of recalls with a chi-squared of at most z^2.

    Chi-squared is the sum of (n - 1) (p - r)^2 / (p (1 - p)) over the cells, with n - 1 for n because
    r (1 - r) / (n - 1) estimates the variance of r without bias.
    """
    observed = float(np.nanmean(np.abs(cells.gap)))
    end = np.where(cells.slope > 0.0, 1.0, 0.0)
    moves = (cells.slope != 0.0) & (cells.recall != end)
    if not moves.any():
        return observed
    recall, end, slope = cells.recall[moves], end[moves], np.abs(cells.slope[moves])
    size = cells.size[moves] - 1.0

    low, high = -_LARGEST_PRICE, _LARGEST_PRICE
    for _ in range(_SEARCHES):
        prices = np.linspace(low, high, _PRICES)
        moved = _move_recalls(recall, end, size / slope, np.exp(prices))
        squared = np.sum(size * (moved - recall) ** 2 / (moved * (1.0 - moved)), axis=1)
        last = int(np.clip(np.count_nonzero(squared > z * z), 1, _PRICES - 1))
        low, high = prices[last - 1], prices[last]
    shift = np.abs(moved - recall) @ slope
    return observed + float(np.interp(z * z, squared[::-1], shift[::-1]))


def _move_recalls(recall: Floats, end: Floats, size: Floats, price: Floats) -> Floats:
    """Moves each recall toward its end, to where the gain in mean |gap| equals the price of chi-squared.

    Args:
      recall: Observed recalls of the cells, float64 [K].
      end: Ends of the recalls' ranges, 0 or 1, float64 [K].
      size: Sizes of the cells, divided by the gain in mean |gap| for each unit of recall, float64 [K].
      price: Mean |gap| that a unit of chi-squared costs, float64 [N].

    Returns:
      Recalls for each price, float64 [N, K].
    """
    near, far = (np.broadcast_to(side, (len(price), len(recall))) for side in (recall, end))
    for _ in range(_HALVINGS):
        middle = 0.5 * (near + far)
        change = np.abs(middle - recall) * (middle + recall - 2.0 * middle * recall)
        dear = price[:, None] * size * change > (middle * (1.0 - middle)) ** 2
        near, far = np.where(dear, near, middle), np.where(dear, middle, far)
    return 0.5 * (near + far)


def _bound_by_squares(cells: _Cells, z: float) -> float:
    """Computes the root of the largest mean squared gap that a test with the quantile z does not reject.

    The estimate is the mean of d^2 - V, with the variance of a quadratic form of normal recalls. A true gap
    t in every class gives its smaller cell at least the variance t (1 - t) / n, and the sums over the classes
    are at least those of such cells. The estimate counts as at least minus its standard error without gaps.
    """
    groups, usable = cells.enough.sum(axis=0), np.isfinite(cells.gap)
    number, pairs = np.count_nonzero(usable), groups * (groups - 1) / 2.0
    _, first, second = list_pairs(len(cells.recall))
    plain = divide(cells.recall * (1.0 - cells.recall), cells.size - 1.0)
    squares = np.where(usable, cells.gap**2 - plain[first] - plain[second], 0.0)
    smallest = np.min(np.where(cells.enough, cells.size, np.inf), axis=0)

    def sum_variances(one: Floats, two: Floats) -> tuple[float, float]:
        """Sums over classes, from the sums of variances and of squared variances over groups."""
        diagonal = (np.maximum(groups - 1, 0) ** 2 - 1) * two
        return float(np.sum((pairs > 0) * (diagonal + one**2))), float(np.sum(pairs * one))

    variance = cells.variance
    noise, mixed = sum_variances(variance.sum(axis=0), np.sum(variance**2, axis=0))
    estimate = max(float(squares.sum()), -float(np.sqrt(2.0 * noise)))

    def compute_excess(gap: float) -> float:
        least = gap * (1.0 - gap) / smallest
        least_noise, least_mixed = sum_variances(least, least**2)
        deviation = np.sqrt(2.0 * max(noise, least_noise) + 4.0 * gap**2 * max(mixed, least_mixed))
        return number * gap**2 - estimate - z * float(deviation)

    low = 1e-9
    if compute_excess(1.0) <= 0.0:
        return 1.0
    return float(brentq(compute_excess, low, 1.0)) if compute_excess(low) < 0.0 else low
