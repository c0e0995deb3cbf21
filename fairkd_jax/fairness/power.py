"""Power analysis of a test set from its counts alone, before any training."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fairkd_jax.fairness.gaps import Floats, compute_mean_abs_gap
from fairkd_jax.fairness.inference import find_comparable_cells
from fairkd_jax.fairness.permutation import compute_heterogeneity

_NUM_RESAMPLES = 4000
_MAX_BISECTIONS = 40


class PowerAnalysis(NamedTuple):
    """Gaps that a test set can show; NaN where no class has two groups to compare.

    Attributes:
      unbiased_mean: Mean |gap| that an unbiased model shows by chance, on average.
      unbiased_high: Mean |gap| that an unbiased model exceeds in one of twenty test sets.
      detectable_gap: Mean true |gap| that the test of any bias finds with the given power.
      detectable_difference: Difference of the mean |gap| of two models on the same images that the paired
        test finds with the given power.
    """

    unbiased_mean: float
    unbiased_high: float
    detectable_gap: float
    detectable_difference: float


def analyze_power(
    total: ArrayLike,
    *,
    recall: float,
    discordant: float,
    power: float = 0.8,
    level: float = 0.05,
    min_count: int = 2,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> PowerAnalysis:
    """Simulates models on a test set and computes the gaps that the test set can show.

    Args:
      total: Test images, int [G, C].
      recall: Recall of the models, in (0, 1).
      discordant: Share of the images that exactly one of two models recognises.
      power: Probability of finding a gap or a difference.
      level: Significance level of the tests.
      min_count: Smallest number of images in a cell that is compared.
      num_resamples: Number of test sets in a simulation.
      seed: Seed of the simulations.

    Returns:
      The gaps by chance and the detectable gaps.
    """
    sizes = np.asarray(total, np.int64)
    enough = find_comparable_cells(sizes, min_count)
    if not enough.any():
        return PowerAnalysis(*[float("nan")] * 4)
    rng = np.random.default_rng(seed)
    columns = enough.any(axis=0)  # with many classes and few images, few are compared
    enough = enough[:, columns]
    sizes = np.where(enough, sizes[:, columns], 0)
    unbiased = rng.binomial(sizes, recall, (num_resamples, *sizes.shape)).astype(float)
    chance = compute_mean_abs_gap(unbiased, sizes, min_count)
    return PowerAnalysis(
        float(chance.mean()),
        float(np.quantile(chance, 0.95)),
        _find_detectable_gap(sizes, enough, unbiased, recall, power, level, rng),
        _compute_detectable_difference(
            sizes, recall, discordant, power, level, min_count, num_resamples, rng
        ),
    )


def _find_detectable_gap(
    sizes: NDArray[np.int64],
    enough: NDArray[np.bool_],
    unbiased: Floats,
    recall: float,
    power: float,
    level: float,
    rng: np.random.Generator,
) -> float:
    """Finds the mean true |gap| that the test of any bias finds with the given power.

    The gaps of the classes are normal about 0, with half of each gap on either side of the recall.
    """

    def compute_statistic(correct: Floats) -> Floats:
        broadcast = np.broadcast_to(sizes.astype(float), correct.shape)
        return compute_heterogeneity(correct, broadcast, enough)

    critical = np.quantile(compute_statistic(unbiased), 1.0 - level)
    # The same normal and uniform numbers at every scale: the power then increases with the scale.
    deviation = rng.standard_normal(unbiased.shape)
    deviation -= deviation.mean(axis=1, keepdims=True)
    uniform = rng.random(unbiased.shape)

    def compute_power_and_gap(scale: float) -> tuple[float, float]:
        true = np.clip(recall + scale * deviation, 0.0, 1.0)
        correct = stats.binom.ppf(uniform, sizes, true)
        gaps = compute_mean_abs_gap(true * sizes, sizes)
        return float(np.mean(compute_statistic(correct) > critical)), float(np.mean(gaps))

    low, high = 0.0, 1.0
    for _ in range(_MAX_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if compute_power_and_gap(middle)[0] < power else (low, middle)
        if high - low < 1e-4:
            break
    reached, gap = compute_power_and_gap(high)
    return gap if reached >= power else float("nan")


def _compute_detectable_difference(
    sizes: NDArray[np.int64],
    recall: float,
    discordant: float,
    power: float,
    level: float,
    min_count: int,
    num_resamples: int,
    rng: np.random.Generator,
) -> float:
    """Computes the detectable difference between two models.

    The number comes from the spread of the difference between two models of equal recall without bias.
    """
    alone = discordant / 2.0
    shares = [recall - alone, alone, alone, 1.0 - recall - alone]
    outcomes = rng.multinomial(sizes, shares, (num_resamples, *sizes.shape))
    first, second = (outcomes[..., 0] + outcomes[..., k].astype(float) for k in (1, 2))
    gaps = [compute_mean_abs_gap(correct, sizes, min_count) for correct in (first, second)]
    spread = np.std(gaps[0] - gaps[1])
    return float((stats.norm.ppf(1.0 - level / 2.0) + stats.norm.ppf(power)) * spread)
