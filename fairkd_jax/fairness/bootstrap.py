"""Bootstrap resamples of the count tensor and percentile intervals, in numpy with a seed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats

Integers = NDArray[np.integer[Any]]

_BLOCK = 2**22  # counts that are resampled at a time


def resample_counts(counts: ArrayLike, num_resamples: int, rng: np.random.Generator) -> Integers:
    """Draws test sets like the given one, with the same number of examples in every row.

    Args:
      counts: Counts of the outcomes of the images in each row, int [R, C, K]. Those of `group_counts` have
        groups and labels as rows, and predictions as outcomes.
      num_resamples: Number of test sets, D.
      rng: Random number generator.

    Returns:
      Counts, int32 [D, R, C, K]. For each group (the unknown group too) and label, the counts are multinomial
      over the outcomes that occur in `counts`.
    """
    tensor = np.asarray(counts)
    drawn = np.zeros((num_resamples, *tensor.shape), np.int32)
    for group, label in np.argwhere(tensor.sum(axis=2) > 0):
        row = tensor[group, label]
        # A prediction that did not occur cannot be drawn: with many classes that is nearly every prediction.
        occurred = np.flatnonzero(row)
        found = row[occurred]
        drawn[:, group, label, occurred] = rng.multinomial(found.sum(), found / found.sum(), num_resamples)
    return drawn


def compute_percentile_intervals(
    counts: ArrayLike,
    compute_measures: Callable[[Integers], Mapping[str, Floats]],
    *,
    num_resamples: int,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, list[Any]]:
    """Computes intervals of measures that are close to sums over examples: accuracy, recall, F1.

    The ends are quantiles of the measure over resampled test sets. The intervals are not valid for the mean
    |gap|, for the largest gap, nor for the worst recall of all groups and classes. Sampling noise moves these
    measures in one direction. The observed measure has this noise already, and every resample adds the noise
    a second time.

    A row with a single example never changes, and a row with n examples varies by (n - 1) / n of the correct
    variance. With fewer than about ten examples in most rows the intervals are too narrow. Where no resample
    changes a measure, as with a model without errors, both ends are equal and tell nothing about its error.

    Args:
      counts: Counts from `group_counts`, int [G + 1, C, C].
      compute_measures: Function from counts [D, G + 1, C, C] to a dict of measures, [D] or [D, K] each.
      num_resamples: Number of resampled test sets.
      level: Confidence level.
      seed: Seed of the resamples.

    Returns:
      For each measure [low, high], or a list of K such pairs; NaN where a measure is NaN.
    """
    drawn = resample_measures(counts, compute_measures, num_resamples=num_resamples, seed=seed)
    outside = 0.5 * (1.0 - level)
    return {
        name: np.quantile(values, (outside, 1.0 - outside), axis=0).T.tolist()
        for name, values in drawn.items()
    }


def resample_measures(
    counts: ArrayLike,
    compute_measures: Callable[[Integers], Mapping[str, Floats]],
    *,
    num_resamples: int,
    seed: int = 0,
) -> dict[str, Floats]:
    """Computes measures of resampled test sets.

    Args:
      counts: Counts of the outcomes of the images in each row, int [R, C, K]: those of `group_counts`, with
        predictions as outcomes, or any other.
      compute_measures: Function from counts [D, R, C, K] to a dict of measures, [D] or [D, M] each.
      num_resamples: Number of resampled test sets, D.
      seed: Seed of the resamples.

    Returns:
      Each measure for all test sets, float64 [D] or [D, M].
    """
    drawn: dict[str, list[Floats]] = {}
    for block in _iterate_blocks(np.asarray(counts), num_resamples, np.random.default_rng(seed)):
        for name, values in compute_measures(block).items():
            drawn.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in drawn.items()}


def _iterate_blocks(counts: Integers, num_resamples: int, rng: np.random.Generator) -> Iterator[Integers]:
    """Yields the resamples in blocks, which are smaller where there are many classes."""
    size = max(1, _BLOCK // counts.size)
    for start in range(0, num_resamples, size):
        yield resample_counts(counts, min(size, num_resamples - start), rng)
