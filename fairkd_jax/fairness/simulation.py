"""Simulation of models of known bias, to check the coverage of intervals and the level of tests."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import (
    HALF_NORMAL_MEAN,
    Floats,
    compute_corrected_mean_abs_gap,
    compute_gaps,
    compute_mean_abs_gap,
    compute_mean_squared_gap,
)
from fairkd_jax.fairness.inference import (
    compute_corrected_interval,
    compute_newcombe_interval,
)
from fairkd_jax.fairness.paired_comparison import compare_paired_outcomes
from fairkd_jax.fairness.permutation import compute_any_bias_p
from fairkd_jax.fairness.small_cells import list_scenarios, simulate_scenario

# Images of each of the 16 classes, men and women, among 5,188 test images of WIDER Attribute
# (mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute.html). An image with fewer than half men counts as a woman's.
WIDER_COUNTS = (
    (801, 266, 237, 102, 216, 81, 16, 233, 230, 42, 248, 36, 153, 210, 192, 199),
    (193, 181, 183, 82, 345, 33, 63, 72, 60, 214, 49, 52, 45, 82, 138, 134),
)
WIDER_IMAGES = 3465
MEAN_GAPS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12)
ARRANGEMENTS = {
    "normal": "the gaps of the classes are normal about 0, as the corrected mean assumes",
    "equal": "all gaps have one size and a random sign",
    "few": "a quarter of the classes has all the gaps, of one size and a random sign",
}
TABLES = ("one model", "two models", "small cells")
_LEVEL = 0.05  # significance level of the tests


class SimulationSettings(NamedTuple):
    """Settings of a simulation.

    Attributes:
      sizes: Images of the test set, int [2, C]; 2 or more each.
      accuracy: Accuracy of the models; the recalls of the two groups lie on either side.
      trials: Number of simulated models, or of pairs of models.
      num_resamples: Number of resamples of every interval and test.
      seed: Random seed.
      discordant: Share of the images that exactly one of two equal models recognises.
    """

    sizes: NDArray[np.int64]
    accuracy: float = 0.65
    trials: int = 1000
    num_resamples: int = 1000
    seed: int = 0
    discordant: float = 0.2


def make_wider_counts(images: int = WIDER_IMAGES) -> NDArray[np.int64]:
    """Returns the counts of WIDER Attribute's classes and genders in a smaller or larger test set.

    Args:
      images: Approximate number of images.

    Returns:
      Counts, int64 [2, 16].
    """
    counts = np.array(WIDER_COUNTS)
    return np.round(counts * (images / counts.sum())).astype(np.int64)


def draw_true_recalls(
    arrangement: str, mean_gap: float, accuracy: float, classes: int, rng: np.random.Generator
) -> Floats:
    """Draws true recalls, with half of each gap on either side of the accuracy.

    Args:
      arrangement: Key of `ARRANGEMENTS`.
      mean_gap: Mean |gap|: exact for "equal" and "few", the expectation for "normal".
      accuracy: Accuracy of the model, in (0, 1).
      classes: Number of classes, C.
      rng: Random number generator.

    Returns:
      Recalls, float64 [2, C], clipped to [0, 1].
    """
    sign = rng.choice((-1.0, 1.0), classes)
    if arrangement == "normal":
        gap = rng.normal(0.0, mean_gap / HALF_NORMAL_MEAN, classes)
    elif arrangement == "equal":
        gap = mean_gap * sign
    else:
        some = rng.permutation(classes) < max(1, classes // 4)
        gap = np.where(some, mean_gap / some.mean() * sign, 0.0)
    return np.clip(accuracy + np.stack([0.5 * gap, -0.5 * gap]), 0.0, 1.0)


def measure_test_set(
    sizes: NDArray[np.int64], recall: Floats, num_resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Draws a test set and compares its measures with the truth.

    Args:
      sizes: Images of the test set, int [2, C].
      recall: True recalls, float64 [2, C].
      num_resamples: Number of resamples of the intervals and tests.
      rng: Random number generator.

    Returns:
      `truth`, the mean true |gap|; `plain`, `corrected` and `d2`, the errors of the three measures;
      `interval`, the two ends of the corrected interval;
      `bootstrap`, whether the percentile interval from a bootstrap of the plain mean covers the truth;
      `newcombe`, the share of classes whose interval covers their gap; `p`, the p value of no bias.
    """
    seed, gap = int(rng.integers(2**32)), recall[0] - recall[1]
    correct = rng.binomial(sizes, recall)
    gaps = compute_gaps(correct, sizes, 2)
    difference, variance = gaps.difference[0], gaps.variance[0]
    truth = float(np.mean(np.abs(gap)))
    low, high = compute_newcombe_interval(correct, sizes)
    drawn = rng.binomial(sizes[..., None], (correct / sizes)[..., None], (*sizes.shape, num_resamples))
    resampled = compute_mean_abs_gap(np.moveaxis(drawn, -1, 0).astype(float), sizes)
    ends = np.quantile(resampled, (0.025, 0.975))
    return {
        "truth": truth,
        "plain": float(np.mean(np.abs(difference))) - truth,
        "corrected": compute_corrected_mean_abs_gap(difference, variance) - truth,
        "d2": compute_mean_squared_gap(difference, variance) - float(np.mean(gap**2)),
        "interval": compute_corrected_interval(correct, sizes, num_resamples=num_resamples, seed=seed),
        "bootstrap": bool(ends[0] <= truth <= ends[1]),
        "newcombe": float(np.mean((low <= gap) & (gap <= high))),
        "p": compute_any_bias_p(correct, sizes, num_resamples=num_resamples, seed=seed),
    }


def simulate_one_model(settings: SimulationSettings, arrangement: str, mean_gap: float) -> dict[str, Any]:
    """Measures many simulated models of the same bias.

    Args:
      settings: Settings of the simulation.
      arrangement: Key of `ARRANGEMENTS`.
      mean_gap: Mean true |gap|.

    Returns:
      The mean errors `plain`, `corrected` and `d2`, and shares of trials:
      `covers`, the interval covers the mean |gap| of the classes at hand;
      `above` and `below`, the interval lies above or below this mean;
      `covers_expected`, the interval covers the expectation of this mean over classes;
      `bootstrap`, the bootstrap interval covers this mean; `rejected`, the test rejects no bias.
      `newcombe` is the share of classes whose interval covers their gap.
    """
    entropy = (settings.seed, round(1e6 * mean_gap), list(ARRANGEMENTS).index(arrangement))
    rng = np.random.default_rng(entropy)
    trials = []
    for _ in range(settings.trials):
        recall = draw_true_recalls(arrangement, mean_gap, settings.accuracy, settings.sizes.shape[1], rng)
        trials.append(measure_test_set(settings.sizes, recall, settings.num_resamples, rng))
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


def draw_paired_outcomes(
    sizes: NDArray[np.int64], first: Floats, second: Floats, discordant: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws the outcomes of two models on the same images.

    Args:
      sizes: Images of the test set, int [2, C].
      first: True recalls of the first model, float64 [2, C].
      second: True recalls of the second model, float64 [2, C].
      discordant: Share of the images that exactly one of the models recognises, where recalls are equal.
      rng: Random number generator.

    Returns:
      Counts, int64 [4, 2, C]; see `paired_comparison.count_paired_outcomes`.
    """
    least, most = np.minimum(first, second), np.maximum(first, second)
    both = least - np.minimum(0.5 * discordant, np.minimum(least, 1.0 - most))
    shares = np.stack([both, first - both, second - both, 1.0 - first - second + both], axis=-1)
    return np.moveaxis(rng.multinomial(sizes, np.clip(shares, 0.0, 1.0)), -1, 0)


def simulate_two_models(settings: SimulationSettings, mean_gap: float) -> dict[str, Any]:
    """Compares many pairs of models: two equally biased models, and a biased with an unbiased model.

    Args:
      settings: Settings of the simulation.
      mean_gap: Mean true |gap| of a biased model, with normal gaps.

    Returns:
      For equally biased models, shares of trials: `rejected`, and `covers` (the interval holds 0).
      For a biased and an unbiased model: `shown`, the mean observed difference; `found`, the share of trials
      that find a difference; `covers_difference`, the share of intervals that hold the true difference.
    """
    rng = np.random.default_rng((settings.seed, round(1e6 * mean_gap), len(ARRANGEMENTS)))
    sizes, rows = settings.sizes, []
    for _ in range(settings.trials):
        recall = draw_true_recalls("normal", mean_gap, settings.accuracy, sizes.shape[1], rng)
        unbiased = np.full_like(recall, settings.accuracy)
        truth = np.mean(np.abs(recall[0] - recall[1]))
        equal, other = (
            compare_paired_outcomes(
                draw_paired_outcomes(sizes, recall, second, settings.discordant, rng),
                num_resamples=settings.num_resamples,
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
    settings: SimulationSettings, mean_gaps: Sequence[float] = MEAN_GAPS, tables: Sequence[str] = TABLES
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs the simulations of some tables, or of all tables, and yields their rows.

    Args:
      settings: Settings of the simulation.
      mean_gaps: Mean true |gaps| to simulate.
      tables: Names of the tables, from `TABLES`.

    Yields:
      The name of a table and a row of this table. Rows of "small cells" come from
      `small_cells.simulate_scenario`, with test sets of their own.
    """
    for arrangement in ARRANGEMENTS if "one model" in tables else ():
        for mean_gap in mean_gaps:
            if mean_gap or arrangement == "normal":  # without gaps all arrangements are the same
                yield "one model", simulate_one_model(settings, arrangement, mean_gap)
    for mean_gap in mean_gaps if "two models" in tables else ():
        yield "two models", simulate_two_models(settings, mean_gap)
    for scenario in list_scenarios() if "small cells" in tables else ():
        yield (
            "small cells",
            simulate_scenario(scenario, settings.trials, settings.num_resamples, settings.seed),
        )


def select_usable_counts(counts: ArrayLike) -> NDArray[np.int64]:
    """Selects the classes with 2 or more images of both groups.

    Args:
      counts: Images, int [2, C].

    Returns:
      Images of the selected classes, int64 [2, number of selected classes].
    """
    sizes = np.asarray(counts, np.int64)
    return sizes[:, (sizes >= 2).all(axis=0)]
