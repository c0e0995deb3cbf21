"""Models of known bias, simulated on real counts: whether intervals and tests keep what they promise."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import (
    HALF_NORMAL,
    Floats,
    corrected_mean_abs,
    mean_abs_gap,
    mean_squared_gap,
    pairwise_gaps,
)
from fairkd_jax.fairness.inference import any_bias_test, corrected_interval, newcombe, paired_comparison

# Images of each of the 16 classes, men and women, among 5,188 test images of WIDER Attribute
# (mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute.html); a woman's are those with fewer than half men.
WIDER_COUNTS = (
    (801, 266, 237, 102, 216, 81, 16, 233, 230, 42, 248, 36, 153, 210, 192, 199),
    (193, 181, 183, 82, 345, 33, 63, 72, 60, 214, 49, 52, 45, 82, 138, 134),
)
WIDER_IMAGES = 3465
MEAN_GAPS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12)
ARRANGEMENTS = {
    "normal": "the gaps of the classes are normal about 0, as the corrected mean supposes",
    "equal": "they are all of one size, of either sign",
    "few": "a quarter of the classes has them all, of one size and either sign",
}
_LEVEL = 0.05  # of tests


class Setting(NamedTuple):
    """What is simulated.

    Attributes:
      sizes: int [2, C], images of the test set; 2 or more each.
      accuracy: of the models, about which the recalls of two groups lie.
      trials: simulated models, or pairs of models.
      draws: of every interval and test.
      seed: of it all.
      discordant: share of images that one alone of two equal models recognises.
    """

    sizes: NDArray[np.int64]
    accuracy: float = 0.65
    trials: int = 1000
    draws: int = 1000
    seed: int = 0
    discordant: float = 0.2


def wider_counts(images: int = WIDER_IMAGES) -> NDArray[np.int64]:
    """[2, 16]: WIDER Attribute's classes and genders in a test set of about so many images."""
    counts = np.array(WIDER_COUNTS)
    return np.round(counts * (images / counts.sum())).astype(np.int64)


def true_recalls(
    arrangement: str, mean_gap: float, accuracy: float, classes: int, rng: np.random.Generator
) -> Floats:
    """[2, C], half of each gap on either side of the accuracy, kept within 0 and 1.

    Args:
      arrangement: of ARRANGEMENTS.
      mean_gap: mean |gap|: that of "equal" and "few" exactly, of "normal" on average.
      accuracy: in (0, 1).
      classes: C.
      rng: a generator.
    """
    sign = rng.choice((-1.0, 1.0), classes)
    if arrangement == "normal":
        gap = rng.normal(0.0, mean_gap / HALF_NORMAL, classes)
    elif arrangement == "equal":
        gap = mean_gap * sign
    else:
        some = rng.permutation(classes) < max(1, classes // 4)
        gap = np.where(some, mean_gap / some.mean() * sign, 0.0)
    return np.clip(accuracy + np.stack([0.5 * gap, -0.5 * gap]), 0.0, 1.0)


def measured(
    sizes: NDArray[np.int64], recall: Floats, draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    """What is reported of one test set, beside the truth.

    Args:
      sizes: int [2, C].
      recall: [2, C], true ones.
      draws: of intervals and tests.
      rng: a generator.

    Returns:
      truth, the mean true |gap|; the errors of the plain and the corrected mean and of d2; the ends of the
      interval; bootstrap, whether the percentile interval of a bootstrap of the plain mean covers the truth;
      newcombe, the share of classes whose interval covers their gap; p, of no bias at all.
    """
    seed, gap = int(rng.integers(2**32)), recall[0] - recall[1]
    correct = rng.binomial(sizes, recall)
    gaps = pairwise_gaps(correct, sizes, 2)
    difference, variance = gaps.difference[0], gaps.variance[0]
    truth = float(np.mean(np.abs(gap)))
    low, high = newcombe(correct, sizes)
    drawn = rng.binomial(sizes[..., None], (correct / sizes)[..., None], (*sizes.shape, draws))
    ends = np.quantile(mean_abs_gap(np.moveaxis(drawn, -1, 0).astype(float), sizes), (0.025, 0.975))
    return {
        "truth": truth,
        "plain": float(np.mean(np.abs(difference))) - truth,
        "corrected": corrected_mean_abs(difference, variance) - truth,
        "d2": mean_squared_gap(difference, variance) - float(np.mean(gap**2)),
        "interval": corrected_interval(correct, sizes, draws=draws, seed=seed),
        "bootstrap": bool(ends[0] <= truth <= ends[1]),
        "newcombe": float(np.mean((low <= gap) & (gap <= high))),
        "p": any_bias_test(correct, sizes, draws=draws, seed=seed),
    }


def one_model(setting: Setting, arrangement: str, mean_gap: float) -> dict[str, Any]:
    """Measures many models of the same bias.

    Returns:
      The mean errors plain, corrected and d2; the shares of trials in which the interval covers the mean
      |gap| of the classes at hand (`covers`), lies `above` and `below` it, and covers its expectation over
      classes (`covers_expected`), in which the `bootstrap` covers the former, and in which no bias at all is
      `rejected`; and newcombe.
    """
    rng = np.random.default_rng((setting.seed, round(1e6 * mean_gap), list(ARRANGEMENTS).index(arrangement)))
    trials = []
    for _ in range(setting.trials):
        recall = true_recalls(arrangement, mean_gap, setting.accuracy, setting.sizes.shape[1], rng)
        trials.append(measured(setting.sizes, recall, setting.draws, rng))
    column = {name: np.array([trial[name] for trial in trials]) for name in trials[0]}
    (low, high), truth = column["interval"].T, column["truth"]
    return {
        "arrangement": arrangement,
        "mean_gap": mean_gap,
        **{name: float(column[name].mean()) for name in ("plain", "corrected", "d2")},
        "covers": float(np.mean((low <= truth) & (truth <= high))),
        "above": float(np.mean(low > truth)),
        "below": float(np.mean(high < truth)),
        "covers_expected": float(np.mean((low <= truth.mean()) & (truth.mean() <= high))),
        **{name: float(column[name].mean()) for name in ("bootstrap", "newcombe")},
        "rejected": float(np.mean(column["p"] <= _LEVEL)),
    }


def drawn_outcomes(
    sizes: NDArray[np.int64], first: Floats, second: Floats, discordant: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How two models of these recalls fare on the same images: [4, 2, C], see `inference.paired_outcomes`."""
    least, most = np.minimum(first, second), np.maximum(first, second)
    both = least - np.minimum(0.5 * discordant, np.minimum(least, 1.0 - most))
    shares = np.stack([both, first - both, second - both, 1.0 - first - second + both], axis=-1)
    return np.moveaxis(rng.multinomial(sizes, np.clip(shares, 0.0, 1.0)), -1, 0)


def two_models(setting: Setting, mean_gap: float) -> dict[str, Any]:
    """Compares many pairs: twice the same bias (normal gaps), and a biased model with an unbiased one.

    Returns:
      Of equals, the shares `rejected` and `covers` (of intervals that hold 0). Of a biased model and an
      unbiased one, the mean difference that is `shown`, the share `found`, and that of intervals that hold
      the true difference (`covers_difference`).
    """
    rng = np.random.default_rng((setting.seed, round(1e6 * mean_gap), len(ARRANGEMENTS)))
    sizes, rows = setting.sizes, []
    for _ in range(setting.trials):
        recall = true_recalls("normal", mean_gap, setting.accuracy, sizes.shape[1], rng)
        unbiased = np.full_like(recall, setting.accuracy)
        truth = np.mean(np.abs(recall[0] - recall[1]))
        equal, other = (
            paired_comparison(
                drawn_outcomes(sizes, recall, second, setting.discordant, rng),
                draws=setting.draws,
                seed=int(rng.integers(2**32)),
            )
            for second in (recall, unbiased)
        )
        rows.append(
            (
                equal["p"] <= _LEVEL,
                equal["low"] <= 0.0 <= equal["high"],
                other["difference"],
                other["p"] <= _LEVEL,
                other["low"] <= truth <= other["high"],
            )
        )
    names = ("rejected", "covers", "shown", "found", "covers_difference")
    return {"mean_gap": mean_gap} | dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def simulate(
    setting: Setting, mean_gaps: Sequence[float] = MEAN_GAPS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All of it, row by row, each with the name of its table: "one model" or "two models"."""
    for arrangement in ARRANGEMENTS:
        for mean_gap in mean_gaps:
            if mean_gap or arrangement == "normal":  # without gaps they are all the same
                yield "one model", one_model(setting, arrangement, mean_gap)
    for mean_gap in mean_gaps:
        yield "two models", two_models(setting, mean_gap)


def usable_counts(counts: ArrayLike) -> NDArray[np.int64]:
    """[2, C]: the counts of the classes with 2 or more images of both groups."""
    sizes = np.asarray(counts, np.int64)
    return sizes[:, (sizes >= 2).all(axis=0)]
