"""What a test set can show, from its counts alone: before anyone trains."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fairkd_jax.fairness.gaps import Floats
from fairkd_jax.fairness.inference import comparable, heterogeneity, mean_abs_gap

_DRAWS = 4000
_STEPS = 40  # of a bisection


class Power(NamedTuple):
    """What a test set can show; NaN where no class has two groups to compare.

    Attributes:
      unbiased_mean: mean |gap| that an unbiased model shows on average, by chance.
      unbiased_high: what it exceeds in one of twenty test sets.
      detectable_gap: mean true |gap| that the test of any bias finds with the power asked for.
      detectable_difference: of the mean |gap| of two models on the same images, likewise.
    """

    unbiased_mean: float
    unbiased_high: float
    detectable_gap: float
    detectable_difference: float


def power_of(
    total: ArrayLike,
    *,
    recall: float,
    discordant: float,
    power: float = 0.8,
    level: float = 0.05,
    min_count: int = 2,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Power:
    """Simulates models on a test set.

    Args:
      total: int [G, C], test images.
      recall: of the models, in (0, 1).
      discordant: share of the images that one of two models recognises and the other does not.
      power: with which something is to be found.
      level: of the tests.
      min_count: cells with fewer images are left out.
      draws: test sets of a simulation.
      seed: of the simulations.
    """
    sizes = np.asarray(total, np.int64)
    enough = comparable(sizes, min_count)
    if not enough.any():
        return Power(*[float("nan")] * 4)
    rng = np.random.default_rng(seed)
    sizes = np.where(enough, sizes, 0)
    unbiased = rng.binomial(sizes, recall, (draws, *sizes.shape)).astype(float)
    chance = mean_abs_gap(unbiased, sizes, min_count)
    return Power(
        float(chance.mean()),
        float(np.quantile(chance, 0.95)),
        _detectable_gap(sizes, enough, unbiased, recall, power, level, rng),
        _detectable_difference(sizes, recall, discordant, power, level, min_count, draws, rng),
    )


def _detectable_gap(
    sizes: NDArray[np.int64],
    enough: NDArray[np.bool_],
    unbiased: Floats,
    recall: float,
    power: float,
    level: float,
    rng: np.random.Generator,
) -> float:
    """Gaps of a class are normal about 0, half of each on either side of the recall."""

    def statistic(correct: Floats) -> Floats:
        broadcast = np.broadcast_to(sizes.astype(float), correct.shape)
        return heterogeneity(correct, broadcast, enough)

    critical = np.quantile(statistic(unbiased), 1.0 - level)
    # The same normal and uniform draws at every scale: what is found then rises with the scale.
    deviation = rng.standard_normal(unbiased.shape)
    deviation -= deviation.mean(axis=1, keepdims=True)
    uniform = rng.random(unbiased.shape)

    def found(scale: float) -> tuple[float, float]:
        true = np.clip(recall + scale * deviation, 0.0, 1.0)
        correct = stats.binom.ppf(uniform, sizes, true)
        gaps = mean_abs_gap(true * sizes, sizes)
        return float(np.mean(statistic(correct) > critical)), float(np.mean(gaps))

    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if found(middle)[0] < power else (low, middle)
        if high - low < 1e-4:
            break
    reached, gap = found(high)
    return gap if reached >= power else float("nan")


def _detectable_difference(
    sizes: NDArray[np.int64],
    recall: float,
    discordant: float,
    power: float,
    level: float,
    min_count: int,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """From the spread of the difference between two models that are equally good and equally unbiased."""
    alone = discordant / 2.0
    shares = [recall - alone, alone, alone, 1.0 - recall - alone]
    outcomes = rng.multinomial(sizes, shares, (draws, *sizes.shape))
    first, second = (outcomes[..., 0] + outcomes[..., k].astype(float) for k in (1, 2))
    spread = np.std(mean_abs_gap(first, sizes, min_count) - mean_abs_gap(second, sizes, min_count))
    return float((stats.norm.ppf(1.0 - level / 2.0) + stats.norm.ppf(power)) * spread)
