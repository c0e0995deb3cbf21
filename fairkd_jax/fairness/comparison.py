"""Comparing two methods: over seeds, which tell methods apart, and over images. In numpy float64, seeded."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq

from fairkd_jax.fairness.gaps import Floats
from fairkd_jax.fairness.inference import DRAWS, mean_abs_gap

LEVEL = 0.95  # of confidence
POWER = 0.8  # with which a difference is to be found
_BLOCK = 2_000_000  # numbers that a block of draws may hold in an array
_SAME = 1e-12  # a spread of shares below this is rounding

LOWER, HIGHER, NOTHING, ONE_SEED = "lower", "higher", "no difference detected", "one seed"


class OverSeeds(NamedTuple):
    """Differences of two methods with the same seeds; NaN where the seeds do not tell.

    Attributes:
      mean: of the differences.
      deviation: their standard deviation.
      low: lower end of the interval of the mean difference.
      high: its upper end.
      p: of no difference, two-sided.
      detectable: mean difference that as many seeds find with the power asked for, at this deviation.
    """

    mean: float
    deviation: float
    low: float
    high: float
    p: float
    detectable: float


def over_seeds(differences: ArrayLike, *, level: float = LEVEL, tests: int = 1) -> OverSeeds:
    """The paired t test over seeds.

    Args:
      differences: [S], a seed each.
      level: of the interval.
      tests: how many p values are corrected together, which `detectable` allows for.

    Returns:
      The mean with its interval; all but the mean NaN with one seed, all but mean and deviation where every
      seed shows the same difference.
    """
    values = np.asarray(differences, np.float64)
    seeds, mean = len(values), float(np.mean(values))
    if seeds < 2:
        return OverSeeds(mean, *[float("nan")] * 5)
    deviation = float(np.std(values, ddof=1))
    if not deviation > _SAME:
        return OverSeeds(mean, deviation, *[float("nan")] * 4)
    error = deviation / np.sqrt(seeds)
    half = float(stats.t.ppf(0.5 + 0.5 * level, seeds - 1) * error)
    p = float(2.0 * stats.t.sf(abs(mean) / error, seeds - 1))
    found = detectable(deviation, seeds, level=(1.0 - level) / tests)
    return OverSeeds(mean, deviation, mean - half, mean + half, p, found)


def detectable(deviation: float, seeds: int, *, power: float = POWER, level: float = 1.0 - LEVEL) -> float:
    """The mean difference that a paired t test finds with some power, from the noncentral t distribution.

    Args:
      deviation: standard deviation of the differences of a pair.
      seeds: pairs, two or more.
      power: of the test.
      level: of the two-sided test.
    """
    freedom = seeds - 1
    critical = float(stats.t.ppf(1.0 - level / 2.0, freedom))

    def lacking(shift: float) -> float:
        other_side = float(stats.nct.cdf(-critical, freedom, shift))
        # That far from zero the other side is empty, and not always computable.
        return float(stats.nct.sf(critical, freedom, shift)) + np.nan_to_num(other_side) - power

    high = critical
    while lacking(high) < 0.0:
        high *= 2.0
    return float(brentq(lacking, 0.0, high) * deviation / np.sqrt(seeds))


def verdict(mean: float, p: float, seeds: int, level: float = LEVEL) -> str:
    """What may be said of the first of two methods: `LOWER`, `HIGHER`, `NOTHING`, or `ONE_SEED`.

    Args:
      mean: difference, first minus second.
      p: of the test over seeds, corrected where there are several.
      seeds: of both.
      level: of confidence.
    """
    if seeds < 2:
        return ONE_SEED
    if not p < 1.0 - level:
        return NOTHING
    return LOWER if mean < 0.0 else HIGHER


def over_images(
    group: ArrayLike,
    label: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: int,
    classes: int,
    min_count: int = 2,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Compares trained models of two methods on the same images: what other images might have shown.

    Images of a cell (a group and a class) that all models answer alike are drawn together: a bootstrap of the
    images is multinomial over such patterns, a permutation binomial. With one seed this is
    `inference.paired_comparison`.

    Args:
      group: int [N], unknown where it is not in [0, G): such images count in accuracy alone.
      label: int [N] in [0, C).
      correct_a: bool [S, N], whether a method's model of a seed recognises the image.
      correct_b: bool [S, N], the same of the other method.
      groups: G.
      classes: C.
      min_count: cells with fewer images are left out of the gaps.
      level: of the intervals.
      draws: bootstrap samples, and permutations.
      seed: of both.

    Returns:
      Of "mean_abs_disparity" and "accuracy" the `difference` (A minus B, mean over seeds), and the ends `low`
      and `high` of an interval about it, from a bootstrap of the images within each cell, the same for all
      models. Between a biased and an unbiased method it covers the difference of what such test sets show,
      not that of the true disparities, which noise shrinks.
      Of the first also `p`, of swapping the two methods' answers image by image, all seeds at once. NaN where
      nothing can be compared.
    """
    right = np.concatenate([np.asarray(correct_a, bool), np.asarray(correct_b, bool)]).astype(np.int8)
    row = np.asarray(group).astype(np.int64)
    row = np.where((row >= 0) & (row < groups), row, groups)
    cell, shape = row * classes + np.asarray(label), (groups + 1, classes)
    images, half = _Patterns(cell, right, shape), len(right) // 2
    swaps = _Patterns(cell, right[half:] - right[:half], shape)
    rng = np.random.default_rng(seed)

    def differences(hits: Floats) -> Floats:
        return _differences(hits, images.sizes, min_count)

    answers = images.total(images.number[None])
    observed = differences(answers)[:, 0]
    sampled = np.concatenate([differences(hits) for hits in images.bootstrap(rng, draws)], axis=1)
    # Resampling adds noise to both models' gaps, which shrinks their difference: only its spread is used.
    noise = sampled - sampled.mean(axis=1, keepdims=True)
    low, high = observed + np.quantile(noise, (0.5 - 0.5 * level, 0.5 + 0.5 * level), axis=1)
    extreme = 0
    for shift in swaps.halves(rng, draws):
        permuted = differences(answers + np.concatenate([shift, -shift], axis=1))[0]
        extreme += int(np.sum(np.abs(permuted) >= abs(observed[0]) * (1.0 - 1e-9)))
    p = (1 + extreme) / (1 + draws) if np.isfinite(observed[0]) else float("nan")
    gap, accuracy = (
        {"difference": float(observed[k]), "low": float(low[k]), "high": float(high[k])} for k in (0, 1)
    )
    return {"mean_abs_disparity": gap | {"p": p}, "accuracy": accuracy}


def _differences(hits: Floats, sizes: NDArray[np.int64], min_count: int) -> Floats:
    """Of mean |gap| and of accuracy, first less second half of the models: [D, 2 S, G + 1, C] -> [2, D]."""
    gap = mean_abs_gap(hits[:, :, :-1], sizes[:-1], min_count)
    accuracy = hits.sum(axis=(-2, -1)) / sizes.sum()
    half = hits.shape[1] // 2
    return np.stack([m[:, :half].mean(axis=1) - m[:, half:].mean(axis=1) for m in (gap, accuracy)])


class _Patterns:
    """Images by cell, and by what M models make of them.

    Attributes:
      number: [K], images of each pattern.
      sizes: int64 [G + 1, C], images of each cell.
    """

    def __init__(self, cell: NDArray[np.int64], values: NDArray[np.int8], shape: tuple[int, int]) -> None:
        """Takes the cells [N] and, for each image, a number of each model [M, N]."""
        rows, self.number = np.unique(np.vstack([cell, values]), axis=1, return_counts=True)
        cells, self._values = rows[0], rows[1:].T.astype(np.float64)
        self.sizes = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        starts = np.searchsorted(cells, np.arange(self.sizes.size + 1))
        self._cells = [(c, slice(starts[c], starts[c + 1])) for c in np.unique(cells)]

    def total(self, number: NDArray[Any]) -> Floats:
        """Sums the patterns' values over each cell's images: [D, K] images -> [D, M, G + 1, C]."""
        sums = np.zeros((len(number), self._values.shape[1], self.sizes.size))
        for c, part in self._cells:
            sums[..., c] = number[:, part] @ self._values[part]
        return sums.reshape(*sums.shape[:2], *self.sizes.shape)

    def bootstrap(self, rng: np.random.Generator, draws: int) -> Iterator[Floats]:
        """Sums over images drawn anew within each cell, block by block."""
        for block in self._blocks(draws):
            drawn = np.empty((block, len(self.number)))
            for _, part in self._cells:
                number = self.number[part]
                drawn[:, part] = rng.multinomial(number.sum(), number / number.sum(), block)
            yield self.total(drawn)

    def halves(self, rng: np.random.Generator, draws: int) -> Iterator[Floats]:
        """Sums over images of which each is taken or left, block by block."""
        some = self._values.any(axis=1)  # the others add nothing
        for block in self._blocks(draws):
            drawn = np.zeros((block, len(self.number)))
            drawn[:, some] = rng.binomial(self.number[some], 0.5, (block, int(some.sum())))
            yield self.total(drawn)

    def _blocks(self, draws: int) -> Iterator[int]:
        size = max(1, _BLOCK // max(len(self.number), self._values.shape[1] * self.sizes.size))
        for begin in range(0, draws, size):
            yield min(size, draws - begin)
