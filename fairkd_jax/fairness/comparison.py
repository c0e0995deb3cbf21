"""Comparison of two methods over seeds and over images, in numpy float64 with a seed.

Only seeds can tell methods apart. Images can tell trained models apart.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq

from fairkd_jax.fairness.gaps import Floats, compute_mean_abs_gap
from fairkd_jax.fairness.inference import NUM_RESAMPLES, find_comparable_cells
from fairkd_jax.fairness.paired_comparison import is_spread

LEVEL = 0.95  # confidence level
POWER = 0.8  # probability of finding a detectable difference
_BLOCK = 2_000_000  # largest number of elements in an array of resamples
_SAME = 1e-12  # a standard deviation of shares below this is rounding

_FEW_SEEDS = 5  # with as many seeds or more, the t test is not far from a test with a known deviation

LOWER, HIGHER, NOTHING, ONE_SEED = "lower", "higher", "no difference detected", "one seed"
TOO_FEW = "too few seeds"


class SeedComparison(NamedTuple):
    """Differences of two methods with the same seeds; NaN where the seeds cannot tell.

    Attributes:
      mean: Mean of the differences.
      deviation: Standard deviation of the differences.
      low: Lower end of the interval of the mean difference.
      high: Upper end of the interval of the mean difference.
      p: Two-sided p value of no difference.
      detectable: Mean difference that the same number of seeds finds with the power `POWER`, at this
        deviation.
    """

    mean: float
    deviation: float
    low: float
    high: float
    p: float
    detectable: float


def compare_over_seeds(differences: ArrayLike, *, level: float = LEVEL, tests: int = 1) -> SeedComparison:
    """Computes the paired t test over seeds.

    Args:
      differences: Difference of the two methods for each seed, [S].
      level: Confidence level of the interval.
      tests: Number of p values that are corrected together; `detectable` allows for the correction.

    Returns:
      The mean with its interval. With one seed only the mean is not NaN. Where every seed shows the same
      difference, only mean and deviation are not NaN.
    """
    values = np.asarray(differences, np.float64)
    seeds, mean = len(values), float(np.mean(values))
    if seeds < 2:
        return SeedComparison(mean, *[float("nan")] * 5)
    deviation = float(np.std(values, ddof=1))
    if not deviation > _SAME:
        return SeedComparison(mean, deviation, *[float("nan")] * 4)
    error = deviation / np.sqrt(seeds)
    half = float(stats.t.ppf(0.5 + 0.5 * level, seeds - 1) * error)
    p = float(2.0 * stats.t.sf(abs(mean) / error, seeds - 1))
    found = compute_detectable_difference(deviation, seeds, level=(1.0 - level) / tests)
    return SeedComparison(mean, deviation, mean - half, mean + half, p, found)


def compute_detectable_difference(
    deviation: float, seeds: int, *, power: float = POWER, level: float = 1.0 - LEVEL
) -> float:
    """Computes the mean difference that a paired t test finds with a given power.

    The power comes from the noncentral t distribution.

    Args:
      deviation: Standard deviation of the differences between the two members of a pair.
      seeds: Number of pairs, 2 or more.
      power: Power of the test.
      level: Significance level of the two-sided test.

    Returns:
      The mean difference, in the same unit as `deviation`.
    """
    freedom = seeds - 1
    critical = float(stats.t.ppf(1.0 - level / 2.0, freedom))

    def compute_excess_power(shift: float) -> float:
        other_side = float(stats.nct.cdf(-critical, freedom, shift))
        # For large shifts the other side is empty, and scipy cannot always compute it.
        return float(stats.nct.sf(critical, freedom, shift)) + np.nan_to_num(other_side) - power

    high = critical
    while compute_excess_power(high) < 0.0:
        high *= 2.0
    return float(brentq(compute_excess_power, 0.0, high) * deviation / np.sqrt(seeds))


def are_seeds_too_few(found: SeedComparison, seeds: int, *, level: float = LEVEL, tests: int = 1) -> bool:
    """Returns whether the seeds are too few to call a difference undetected.

    With few seeds the t test needs a very large difference, because the deviation is hardly known. Two seeds
    are always too few. Three or four are too few in three cases: the difference would be found if the
    deviation were known, no share could differ by so much as the test needs, or all seeds agree.

    Args:
      found: Result of `compare_over_seeds`.
      seeds: Number of seeds that both methods have.
      level: Confidence level.
      tests: Number of p values that are corrected together.

    Returns:
      The answer; false where there is no difference to judge.
    """
    if math.isnan(found.mean) or not 1 < seeds < _FEW_SEEDS:
        return False
    if seeds == 2 or not found.deviation > _SAME:
        return True
    known = float(stats.norm.isf(0.5 * (1.0 - level) / tests)) * found.deviation / math.sqrt(seeds)
    return abs(found.mean) > known or found.detectable > 1.0


def choose_verdict(mean: float, p: float, seeds: int, level: float = LEVEL, *, too_few: bool = False) -> str:
    """Chooses the words about the first of two methods.

    Args:
      mean: Mean difference, first method minus second.
      p: p value of the test over seeds, corrected where there are several tests.
      seeds: Number of seeds that both methods have.
      level: Confidence level.
      too_few: Whether the seeds are too few, see `are_seeds_too_few`.

    Returns:
      `LOWER`, `HIGHER`, `NOTHING`, `ONE_SEED` or `TOO_FEW`.
    """
    if seeds < 2:
        return ONE_SEED
    if not p < 1.0 - level:
        return TOO_FEW if too_few else NOTHING
    return LOWER if mean < 0.0 else HIGHER


def compare_over_images(
    group: ArrayLike,
    label: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: int,
    classes: int,
    min_count: int = 2,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Compares trained models of two methods on the same images, as a sample of possible images.

    With one seed the result is that of `paired_comparison.compare_paired_outcomes`. The interval comes from a
    bootstrap of the images within each cell (a group and a class), with the same images for all models.
    Between a biased and an unbiased method the interval covers the difference that such test sets show. It
    does not cover the difference of the true disparities, because noise makes observed differences smaller.

    Args:
      group: Groups, int [N]; images with a group outside [0, G) count in accuracy alone.
      label: Labels, int [N] in [0, C).
      correct_a: Whether the model of each seed of method A recognises the image, bool [S, N].
      correct_b: The same for method B, bool [S, N].
      groups: Number of groups, G.
      classes: Number of classes, C.
      min_count: Smallest number of images in a cell that enters the gaps.
      level: Confidence level of the intervals.
      num_resamples: Number of bootstrap samples, and of permutations.
      seed: Seed of both.

    Returns:
      For "mean_abs_disparity" and "accuracy" the `difference` (A minus B, mean over seeds) and the ends
      `low` and `high` of its interval. For "mean_abs_disparity" also `p`, from a permutation that swaps the
      answers of the two methods image by image, for all seeds together. NaN where nothing can be compared.
      `p` is NaN too where the answers differ on a single compared image or on none. `low` and `high` are NaN
      too where all bootstrap samples are alike.
    """
    right = np.concatenate([np.asarray(correct_a, bool), np.asarray(correct_b, bool)]).astype(np.int8)
    row = np.asarray(group).astype(np.int64)
    row = np.where((row >= 0) & (row < groups), row, groups)
    cell, shape = row * classes + np.asarray(label), (groups + 1, classes)
    return _resample_differences(cell, right, shape, min_count, level, num_resamples, seed)


def _resample_differences(
    cell: NDArray[np.int64],
    right: NDArray[np.int8],
    shape: tuple[int, int],
    min_count: int,
    level: float,
    num_resamples: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Computes the result of `compare_over_images` from cells [N] and correct answers [2 S, N]."""
    images, half = _AnswerPatterns(cell, right, shape), len(right) // 2
    swaps = _AnswerPatterns(cell, right[half:] - right[:half], shape)
    rng = np.random.default_rng(seed)

    def compute_differences(hits: Floats) -> Floats:
        return _compute_method_differences(hits, images.sizes, min_count)

    answers = images.sum_cells(images.number[None])
    observed = compute_differences(answers)[:, 0]
    sampled = np.concatenate(
        [compute_differences(hits) for hits in images.resample_sums(rng, num_resamples)], axis=1
    )
    # Resampling adds noise to both models' gaps, which makes their difference smaller: use its spread alone.
    noise = sampled - sampled.mean(axis=1, keepdims=True)
    noise = np.where(is_spread(sampled)[:, None], noise, np.nan)
    low, high = observed + np.quantile(noise, (0.5 - 0.5 * level, 0.5 + 0.5 * level), axis=1)
    extreme = 0
    for shift in swaps.sum_random_halves(rng, num_resamples):
        permuted = compute_differences(answers + np.concatenate([shift, -shift], axis=1))[0]
        extreme += int(np.sum(np.abs(permuted) >= abs(observed[0]) * (1.0 - 1e-9)))
    compared = np.zeros(shape, bool)
    compared[:-1] = find_comparable_cells(images.sizes[:-1], min_count)
    swapped = compared.ravel()[cell] & (right[half:] != right[:half]).any(axis=0)
    p = (1 + extreme) / (1 + num_resamples) if np.count_nonzero(swapped) > 1 else float("nan")
    gap, accuracy = (
        {"difference": float(observed[k]), "low": float(low[k]), "high": float(high[k])} for k in (0, 1)
    )
    return {"mean_abs_disparity": gap | {"p": p}, "accuracy": accuracy}


def _compute_method_differences(hits: Floats, sizes: NDArray[np.int64], min_count: int) -> Floats:
    """Computes mean |gap| and accuracy of the first half of the models minus those of the second half.

    Args:
      hits: Recognised images, float64 [D, 2 S, G + 1, C].
      sizes: Images of each cell, int64 [G + 1, C].
      min_count: Smallest number of images in a cell that enters the gaps.

    Returns:
      Differences, float64 [2, D].
    """
    gap = compute_mean_abs_gap(hits[:, :, :-1], sizes[:-1], min_count)
    accuracy = hits.sum(axis=(-2, -1)) / sizes.sum()
    half = hits.shape[1] // 2
    return np.stack([m[:, :half].mean(axis=1) - m[:, half:].mean(axis=1) for m in (gap, accuracy)])


class _AnswerPatterns:
    """Numbers of images of each pattern: a cell and the answers of M models.

    Images with the same pattern are drawn together. A bootstrap of the images is then multinomial over the
    patterns, and a permutation is binomial.

    Attributes:
      number: Images of each pattern, [K].
      sizes: Images of each cell, int64 [G + 1, C].
    """

    def __init__(self, cell: NDArray[np.int64], values: NDArray[np.int8], shape: tuple[int, int]) -> None:
        """Takes the cells [N] and a number for each model and image [M, N]."""
        rows, self.number = np.unique(np.vstack([cell, values]), axis=1, return_counts=True)
        cells, self._values = rows[0], rows[1:].T.astype(np.float64)
        self.sizes = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        starts = np.searchsorted(cells, np.arange(self.sizes.size + 1))
        self._cells = [(c, slice(starts[c], starts[c + 1])) for c in np.unique(cells)]

    def sum_cells(self, number: NDArray[Any]) -> Floats:
        """Sums the patterns' values over the images of each cell: [D, K] images -> [D, M, G + 1, C]."""
        sums = np.zeros((len(number), self._values.shape[1], self.sizes.size))
        for c, part in self._cells:
            sums[..., c] = number[:, part] @ self._values[part]
        return sums.reshape(*sums.shape[:2], *self.sizes.shape)

    def resample_sums(self, rng: np.random.Generator, num_resamples: int) -> Iterator[Floats]:
        """Yields blocks of sums over images that are drawn with replacement within each cell."""
        for block in self._iterate_block_sizes(num_resamples):
            drawn = np.empty((block, len(self.number)))
            for _, part in self._cells:
                number = self.number[part]
                drawn[:, part] = rng.multinomial(number.sum(), number / number.sum(), block)
            yield self.sum_cells(drawn)

    def sum_random_halves(self, rng: np.random.Generator, num_resamples: int) -> Iterator[Floats]:
        """Yields blocks of sums over random images; each image is included with probability 0.5."""
        some = self._values.any(axis=1)  # all other patterns add 0
        for block in self._iterate_block_sizes(num_resamples):
            drawn = np.zeros((block, len(self.number)))
            drawn[:, some] = rng.binomial(self.number[some], 0.5, (block, int(some.sum())))
            yield self.sum_cells(drawn)

    def _iterate_block_sizes(self, num_resamples: int) -> Iterator[int]:
        size = max(1, _BLOCK // max(len(self.number), self._values.shape[1] * self.sizes.size))
        for begin in range(0, num_resamples, size):
            yield min(size, num_resamples - begin)
