"""Intervals and tests of the gaps between groups, in numpy float64 with a seed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.optimize import brentq

from fairkd_jax.fairness.gap_bounds import compute_gap_bounds
from fairkd_jax.fairness.gaps import (
    HALF_NORMAL_MEAN,
    Floats,
    compute_mean_abs_gap,
    compute_shrunken_variance,
    divide,
    list_pairs,
)

NUM_RESAMPLES = 10_000
_BLOCK = 2**22  # numbers of simulated test sets that are computed at a time


def compute_corrected_interval(
    correct: ArrayLike,
    total: ArrayLike,
    *,
    min_count: int = 2,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes an interval of the mean |true gap|, the hull of two intervals.

    The first interval, `compute_normal_interval`, takes the gaps of the classes as draws from one normal
    distribution. The second interval, `gap_bounds.compute_gap_bounds`, holds for every arrangement of the
    gaps, and where all images of a cell are recognised, or none.

    A bootstrap of the mean |d| would add the sampling noise a second time. `simulation` shows the coverage.

    Args:
      correct: Examples that were recognised, int [G, C].
      total: Examples, int [G, C].
      min_count: Smallest number of examples in a cell that is compared; at least 2.
      level: Confidence level.
      num_resamples: Number of simulated test sets.
      seed: Seed of the simulation.

    Returns:
      Lower and upper end, in units of the mean |gap|, within [0, 1]. The upper end is above 0, even where no
      gap is observed. NaN where no class has two groups to compare.
    """
    hits, sizes = np.asarray(correct, np.int64), np.asarray(total, np.int64)
    enough = find_comparable_cells(sizes, min_count)
    if not enough.any():
        return float("nan"), float("nan")
    normal = compute_normal_interval(hits, sizes, enough, level=level, num_resamples=num_resamples, seed=seed)
    return join_intervals(normal, compute_gap_bounds(hits, sizes, enough, level=level))


def join_intervals(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Returns the smallest interval that holds two intervals."""
    return min(first[0], second[0]), max(first[1], second[1])


def compute_normal_interval(
    hits: NDArray[np.int64],
    sizes: NDArray[np.int64],
    enough: NDArray[np.bool_],
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes the interval of the mean |true gap| of classes whose true gaps are N(0, t^2).

    The interval holds every t for which the observed mean |d| lies between the outer quantiles of
    mean |N(0, t^2 + V)|, see `gaps.compute_corrected_mean_abs_gap`. Gaps of pairs that share a group share
    the deviation of this group, and V is `gaps.compute_shrunken_variance`.

    Args:
      hits: Examples that were recognised, int64 [G, C].
      sizes: Examples, int64 [G, C].
      enough: Cells that are compared, bool [G, C]; see `find_comparable_cells`. At least one class has two.
      level: Confidence level.
      num_resamples: Number of simulated test sets.
      seed: Seed of the simulation.

    Returns:
      Lower and upper end. Both are 0 where the gaps are smaller than chance allows for any t, or where
      within every class all recalls are 0 or all recalls are 1.
    """
    observed = float(compute_mean_abs_gap(np.where(enough, hits, 0.0), np.where(enough, sizes, 0)))
    variance = compute_shrunken_variance(hits, sizes, enough)
    pairs, first, second = list_pairs(len(sizes))
    columns = enough.any(axis=0)
    counted = (enough[first] & enough[second])[:, columns].astype(float)
    normal, variance = _draw_normal(enough, num_resamples, seed), variance[:, columns]
    size = max(1, _BLOCK // variance.size)

    def compute_excess(t: float, share: float) -> float:
        # The same random numbers for every t: the quantile then changes without jumps.
        deviation = np.sqrt(0.5 * t * t + variance)[:, None, :]
        sums = []
        for start in range(0, num_resamples, size):
            drawn = normal[:, start : start + size] * deviation
            gaps = [np.abs(drawn[a] - drawn[b]) @ row for (a, b), row in zip(pairs, counted, strict=True)]
            sums.append(np.sum(gaps, axis=0))
        return float(np.quantile(np.concatenate(sums) / counted.sum(), share)) - observed

    outside = 0.5 * (1.0 - level)
    low, high = (
        HALF_NORMAL_MEAN * _find_root(compute_excess, observed, share) for share in (1.0 - outside, outside)
    )
    return min(low, 1.0), min(high, 1.0)  # a gap of shares is at most 1, a normal gap has no bound


def _draw_normal(enough: NDArray[np.bool_], num_resamples: int, seed: int) -> Floats:
    """Draws standard normal numbers for all classes, and keeps those of the K classes that are compared.

    Args:
      enough: Cells that are compared, bool [G, C].
      num_resamples: Number of simulated test sets, D.
      seed: Seed of the numbers.

    Returns:
      Numbers, float64 [G, D, K]; those of a class do not depend on which other classes are compared.
    """
    groups, classes = enough.shape
    columns, rng = np.flatnonzero(enough.any(axis=0)), np.random.default_rng(seed)
    normal = np.empty((groups, num_resamples, len(columns)))
    size = max(1, _BLOCK // classes)
    for group in range(groups):
        for start in range(0, num_resamples, size):
            part = normal[group, start : start + size]
            part[:] = rng.standard_normal((len(part), classes))[:, columns]
    return normal


def _find_root(compute_excess: Callable[[float, float], float], observed: float, share: float) -> float:
    """Finds the t at which a quantile equals the observed mean; 0 where it is not smaller at t = 0."""
    if compute_excess(0.0, share) >= 0.0:
        return 0.0
    high = max(observed, 1e-12)
    while compute_excess(high, share) < 0.0:
        high *= 2.0
    return float(brentq(compute_excess, 0.0, high, args=(share,), xtol=1e-12))


def find_comparable_cells(total: NDArray[np.int64], min_count: int) -> NDArray[np.bool_]:
    """Finds the cells with enough examples in classes where two or more groups have enough.

    Args:
      total: Examples, int64 [G, C].
      min_count: Smallest number of examples in a cell.

    Returns:
      Mask of the cells that enter a comparison, bool [G, C].
    """
    enough = total >= min_count
    return enough & (enough.sum(axis=0) >= 2)


def compute_newcombe_interval(
    correct: ArrayLike, total: ArrayLike, *, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Computes the interval of a difference of two shares (Newcombe 1998, method 10).

    The method combines Wilson's intervals of the two shares.

    Args:
      correct: Successes in the two groups, int [2, C].
      total: Trials in the two groups, int [2, C].
      level: Confidence level.

    Returns:
      Lower and upper ends of share 0 minus share 1, float64 [C] each; NaN where a group is empty.
    """
    hits, sizes = np.asarray(correct, np.float64), np.asarray(total, np.float64)
    z = float(stats.norm.ppf(0.5 + 0.5 * level))
    share = divide(hits, sizes)
    centre = divide(hits + z * z / 2.0, np.where(sizes > 0, sizes + z * z, 0.0))
    half = divide(z * np.sqrt(sizes * share * (1.0 - share) + z * z / 4.0), sizes + z * z)
    low, high = centre - half, centre + half
    difference = share[0] - share[1]
    down = np.sqrt((share[0] - low[0]) ** 2 + (high[1] - share[1]) ** 2)
    up = np.sqrt((high[0] - share[0]) ** 2 + (share[1] - low[1]) ** 2)
    return difference - down, difference + up


def compute_gap_p_values(correct: ArrayLike, total: ArrayLike) -> Floats:
    """Computes two-sided p values of a difference of two shares by the pooled score test.

    Args:
      correct: Successes in the two groups, int [2, C].
      total: Trials in the two groups, int [2, C].

    Returns:
      p values, float64 [C]; NaN where all trials or none succeeded, or where a group is empty.
    """
    hits, sizes = np.asarray(correct, np.float64), np.asarray(total, np.float64)
    pooled = divide(hits.sum(axis=0), sizes.sum(axis=0))
    deviation = np.sqrt(pooled * (1.0 - pooled) * divide(1.0, sizes).sum(axis=0))
    share = divide(hits, sizes)
    z = np.abs(share[0] - share[1])
    return 2.0 * special.ndtr(-divide(z, deviation))


def apply_holm_correction(p_values: ArrayLike) -> Floats:
    """Applies Holm's correction for several tests (1979).

    Args:
      p_values: p values, [N]; NaN where there was no test.

    Returns:
      Adjusted p values, float64 [N]; NaN where there was no test.
    """
    p = np.asarray(p_values, np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    adjusted = np.full(p.shape, np.nan)
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted
