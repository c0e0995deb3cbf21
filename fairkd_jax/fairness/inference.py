"""What the gaps between groups can carry: intervals, tests and draws. All in numpy float64, seeded."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.optimize import brentq

from fairkd_jax.fairness.gaps import HALF_NORMAL, Floats, divide, mean_abs_gap, pairs_of, steady_variance

DRAWS = 10_000


def corrected_interval(
    correct: ArrayLike,
    total: ArrayLike,
    *,
    min_count: int = 2,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the mean |true gap|, by inverting a test.

    True gaps are modelled as N(0, t^2) (see `corrected_mean_abs`). It holds all t for which the observed mean
    |d| lies between the outer quantiles of mean |N(0, t^2 + V)|, where gaps of pairs that share a group
    share its deviation, and V is `steady_variance`. A bootstrap of the mean |d| would add the sampling noise
    a second time. `simulation` shows what it covers: where few classes hold all the gap, less than it says.

    Args:
      correct: int [G, C], examples that were recognised.
      total: int [G, C], examples.
      min_count: cells with fewer examples are left out; at least 2.
      level: of confidence.
      draws: of the simulation.
      seed: of the simulation.

    Returns:
      Lower and upper end, in units of the mean |gap|; both 0 where the gaps are smaller than chance allows
      for any t, or all recalls of every class are 0 or 1 alike; NaN where no class has two groups to compare.
    """
    hits, sizes = np.asarray(correct, np.int64), np.asarray(total, np.int64)
    enough = comparable(sizes, min_count)
    if not enough.any():
        return float("nan"), float("nan")
    observed = float(mean_abs_gap(hits.astype(float), sizes, min_count))
    variance = steady_variance(hits, sizes, enough)
    pairs, first, second = pairs_of(len(sizes))
    counted = (enough[first] & enough[second]).astype(float)
    normal = np.random.default_rng(seed).standard_normal((len(sizes), draws, sizes.shape[1]))

    def excess(t: float, share: float) -> float:
        """Of a quantile over what is observed. The same draws for every t: it then changes without jumps."""
        drawn = normal * np.sqrt(0.5 * t * t + variance)[:, None, :]
        gaps = [np.abs(drawn[a] - drawn[b]) @ row for (a, b), row in zip(pairs, counted, strict=True)]
        return float(np.quantile(np.sum(gaps, axis=0) / counted.sum(), share)) - observed

    def reached(share: float) -> float:
        """The t at which a quantile reaches what is observed; 0 where it lies above it from the start."""
        if excess(0.0, share) >= 0.0:
            return 0.0
        high = max(observed, 1e-12)
        while excess(high, share) < 0.0:
            high *= 2.0
        return float(brentq(excess, 0.0, high, args=(share,), xtol=1e-12))

    outside = 0.5 * (1.0 - level)
    low, high = (HALF_NORMAL * reached(share) for share in (1.0 - outside, outside))
    return min(low, 1.0), min(high, 1.0)  # of shares; normal gaps know no bound


def comparable(total: NDArray[np.int64], min_count: int) -> NDArray[np.bool_]:
    """[G, C]: the cells that enter a comparison, of classes in which two groups do."""
    enough = total >= min_count
    return enough & (enough.sum(axis=0) >= 2)


def heterogeneity(correct: Floats, total: Floats, enough: NDArray[np.bool_]) -> Floats:
    """Sum over classes of Pearson's chi-squared of recall between groups: [..., G, C] -> [...].

    With two groups it is the sum of z^2, with the pooled variance, which no permutation changes.
    """
    correct, total = np.where(enough, correct, 0.0), np.where(enough, total, 0.0)
    pooled = divide(correct.sum(axis=-2, keepdims=True), total.sum(axis=-2, keepdims=True))
    deviation = np.where(enough, divide(correct, total) - pooled, 0.0)
    spread = pooled * (1.0 - pooled)
    squared = divide(total * deviation**2, np.broadcast_to(spread, total.shape))
    return np.nansum(squared, axis=(-2, -1))


def any_bias_test(
    correct: ArrayLike, total: ArrayLike, *, min_count: int = 2, draws: int = DRAWS, seed: int = 0
) -> float:
    """Whether recall depends on the group in any class: permutations of the group within each class.

    Args:
      correct: int [G, C], examples that were recognised.
      total: int [G, C], examples.
      min_count: cells with fewer examples are left out.
      draws: permutations.
      seed: of the permutations.

    Returns:
      The p value of sum_c z_c^2, (1 + those at least as large) / (1 + draws); NaN where no class has two
      groups to compare.
    """
    hits, sizes = np.asarray(correct, np.int64), np.asarray(total, np.int64)
    enough = comparable(sizes, min_count)
    if not enough.any():
        return float("nan")
    hits, sizes = np.where(enough, hits, 0), np.where(enough, sizes, 0)
    observed = heterogeneity(hits.astype(float), sizes.astype(float), enough)
    rng = np.random.default_rng(seed)
    # The examples that were recognised fall to the groups like balls drawn from an urn, group after group.
    left_hits, left = hits.sum(axis=0), sizes.sum(axis=0)
    drawn = np.zeros((draws, *hits.shape))
    remaining = np.broadcast_to(left_hits, (draws, hits.shape[1])).copy()
    for group in range(len(hits) - 1):
        drawn[:, group] = rng.hypergeometric(remaining, left - remaining, sizes[group])
        remaining -= drawn[:, group].astype(np.int64)
        left = left - sizes[group]
    drawn[:, -1] = remaining
    permuted = heterogeneity(drawn, np.broadcast_to(sizes.astype(float), drawn.shape), enough)
    return float((1 + np.sum(permuted >= observed * (1.0 - 1e-9))) / (1 + draws))


def newcombe(correct: ArrayLike, total: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Interval of a difference of two shares (Newcombe 1998, method 10), from Wilson's intervals of each.

    Args:
      correct: int [2, C], successes in the two groups.
      total: int [2, C], trials.
      level: of confidence.

    Returns:
      Lower and upper ends of share 0 minus share 1, [C] each; NaN where a group is empty.
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


def gap_p_values(correct: ArrayLike, total: ArrayLike) -> Floats:
    """Two-sided p values of a difference of two shares, by the pooled score test: [2, C] -> [C].

    1 where all or none succeeded; NaN where a group is empty.
    """
    hits, sizes = np.asarray(correct, np.float64), np.asarray(total, np.float64)
    pooled = divide(hits.sum(axis=0), sizes.sum(axis=0))
    deviation = np.sqrt(pooled * (1.0 - pooled) * divide(1.0, sizes).sum(axis=0))
    share = divide(hits, sizes)
    z = np.abs(share[0] - share[1])
    p = 2.0 * special.ndtr(-divide(z, deviation))
    return np.where(np.isfinite(deviation) & (deviation == 0), 1.0, p)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's correction for many tests (1979): adjusted p values, NaN where there was none."""
    p = np.asarray(p_values, np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    adjusted = np.full(p.shape, np.nan)
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def paired_outcomes(
    group: ArrayLike,
    label: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: int,
    classes: int,
) -> NDArray[np.int64]:
    """Counts of how two models fare on the same images.

    Args:
      group: int [N], -1 where unknown: not counted.
      label: int [N].
      correct_a: bool [N], whether model A recognises the image.
      correct_b: bool [N], whether model B does.
      groups: G.
      classes: C.

    Returns:
      int64 [4, G, C]: both, A alone, B alone, neither.
    """
    g, y = np.asarray(group), np.asarray(label)
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    counts = np.zeros((4, groups, classes), np.int64)
    known = (g >= 0) & (g < groups)
    outcome = np.where(a, np.where(b, 0, 1), np.where(b, 2, 3))
    np.add.at(counts, (outcome[known], g[known], y[known]), 1)
    return counts


def paired_comparison(
    outcomes: ArrayLike, *, min_count: int = 2, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Compares the mean |gap| of two models on the same images.

    Args:
      outcomes: [4, G, C], see `paired_outcomes`.
      min_count: cells with fewer examples are left out.
      level: of the interval.
      draws: of permutations, and of bootstrap samples.
      seed: of both.

    Returns:
      `difference` (A minus B); `p`, of swapping the models' answers image by image, which changes something
      where they differ; and `low` and `high`, of a bootstrap of the images within each group and class, about
      the observed difference, by their spread about their own mean. NaN where nothing can be compared.
    """
    both, only_a, only_b, neither = np.asarray(outcomes, np.int64)
    total = both + only_a + only_b + neither
    rng = np.random.default_rng(seed)

    def difference(a: NDArray[Any], b: NDArray[Any]) -> Floats:
        return mean_abs_gap(a, total, min_count) - mean_abs_gap(b, total, min_count)

    observed = float(difference((both + only_a).astype(float), (both + only_b).astype(float)))
    discordant = only_a + only_b
    swapped = rng.binomial(discordant, 0.5, size=(draws, *total.shape))
    permuted = difference(both + swapped, both + discordant - swapped)
    drawn = rng.multinomial(
        total, np.moveaxis(divide(np.asarray(outcomes), np.maximum(total, 1)), 0, -1), (draws, *total.shape)
    )
    sampled = difference(drawn[..., 0] + drawn[..., 1], drawn[..., 0] + drawn[..., 2])
    outside = 0.5 * (1.0 - level)
    low, high = np.quantile(sampled, (outside, 1.0 - outside))
    extreme = np.sum(np.abs(permuted) >= abs(observed) * (1.0 - 1e-9))
    return {
        "difference": observed,
        "p": float((1 + extreme) / (1 + draws)) if np.isfinite(observed) else float("nan"),
        "low": float(observed + low - np.mean(sampled)),
        "high": float(observed + high - np.mean(sampled)),
    }
