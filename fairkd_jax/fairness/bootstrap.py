"""Bootstrap resamples of the count tensor's margins and percentile intervals, in numpy with a seed.

With C classes the tensor has C^2 cells for each group, and nearly all of them are empty. The measures need
its margins alone, and a resample of these takes C cells.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats

Integers = NDArray[np.integer[Any]]

_BLOCK = 2**22  # counts that are resampled at a time
_SMALLEST_BLOCK = 256  # test sets that are drawn at a time, however many classes there are


class Margins(NamedTuple):
    """Margins of the count tensor, of one test set or of D resampled ones.

    Attributes:
      hits: Examples that were recognised, int [..., G + 1, C].
      support: Examples, int [G + 1, C]; the same in every resample.
      predicted: Examples of all groups by their prediction, int [..., C].
    """

    hits: Integers
    support: Integers
    predicted: Integers


class _Row(NamedTuple):
    """The examples of a group and a label: the predictions that occur, and how often each does."""

    group: int
    label: int
    occurred: Integers
    found: Integers


def sum_margins(counts: Integers) -> Margins:
    """Sums the margins of counts from `group_counts`, int [G + 1, C, C]."""
    return Margins(np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=(0, 1)))


def resample_margins(counts: ArrayLike, num_resamples: int, rng: np.random.Generator) -> Margins:
    """Draws test sets like the given one, with the same number of examples in every row.

    Args:
      counts: Counts of the outcomes of the images in each row, int [R, C, K]. Those of `group_counts` have
        groups and labels as rows, and predictions as outcomes.
      num_resamples: Number of test sets, D.
      rng: Random number generator.

    Returns:
      Margins, int32 [D, ...]. For each group (the unknown group too) and label, the counts are multinomial
      over the predictions that occur in `counts`.
    """
    tensor = np.asarray(counts)
    return _draw_margins(_list_rows(tensor), tensor.sum(axis=2), num_resamples, rng)


def _list_rows(tensor: Integers) -> list[_Row]:
    """Lists the rows that have examples."""
    rows = []
    for group, label in np.argwhere(tensor.sum(axis=2) > 0).tolist():
        # A prediction that did not occur cannot be drawn: with many classes that is nearly every prediction.
        occurred = np.flatnonzero(tensor[group, label])
        rows.append(_Row(group, label, occurred, tensor[group, label, occurred]))
    return rows


def _draw_margins(
    rows: list[_Row], support: Integers, num_resamples: int, rng: np.random.Generator
) -> Margins:
    """Draws the margins of test sets; see `resample_margins`."""
    hits = np.zeros((num_resamples, *support.shape), np.int32)
    predicted = np.zeros((num_resamples, support.shape[1]), np.int32)
    for group, label, occurred, found in rows:
        if len(occurred) == 1:  # every test set has the same row, and nothing is random
            drawn = np.broadcast_to(found, (num_resamples, 1))
        else:
            drawn = rng.multinomial(found.sum(), found / found.sum(), num_resamples)
        predicted[:, occurred] += drawn.astype(np.int32)
        place = np.searchsorted(occurred, label)
        if place < len(occurred) and occurred[place] == label:
            hits[:, group, label] = drawn[:, place]
    return Margins(hits, support, predicted)


def compute_percentile_intervals(
    counts: ArrayLike,
    compute_measures: Callable[[Margins], Mapping[str, Floats]],
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
      compute_measures: Function from the margins of D test sets to a dict of measures, [D] or [D, K] each.
      num_resamples: Number of resampled test sets.
      level: Confidence level.
      seed: Seed of the resamples.

    Returns:
      For each measure [low, high], or a list of K such pairs; NaN where a measure is NaN.
    """
    blocks = _iterate_blocks(np.asarray(counts), num_resamples, np.random.default_rng(seed))
    drawn = _join_measures(map(compute_measures, blocks))
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
    """Computes measures of resampled test sets whose images have a few possible outcomes.

    Args:
      counts: Counts of the outcomes of the images in each cell, int [G, C, K].
      compute_measures: Function from counts [D, G, C, K] to a dict of measures, [D] or [D, M] each.
      num_resamples: Number of resampled test sets, D.
      seed: Seed of the resamples.

    Returns:
      Each measure for all test sets, float64 [D] or [D, M].
    """
    tensor, rng = np.asarray(counts), np.random.default_rng(seed)
    rows, size = _list_rows(tensor), max(1, _BLOCK // tensor.size)

    def draw(size: int) -> Integers:
        block = np.zeros((size, *tensor.shape), np.int32)
        for group, label, occurred, found in rows:
            block[:, group, label, occurred] = rng.multinomial(found.sum(), found / found.sum(), size)
        return block

    sizes = (min(size, num_resamples - start) for start in range(0, num_resamples, size))
    return _join_measures(compute_measures(draw(size)) for size in sizes)


def _join_measures(blocks: Iterable[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Joins the measures of blocks of resamples."""
    drawn: dict[str, list[Floats]] = {}
    for block in blocks:
        for name, values in block.items():
            drawn.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in drawn.items()}


def _iterate_blocks(counts: Integers, num_resamples: int, rng: np.random.Generator) -> Iterator[Margins]:
    """Yields the resamples in blocks, which are smaller where there are many classes."""
    rows, support = _list_rows(counts), counts.sum(axis=2)
    size = max(_SMALLEST_BLOCK, _BLOCK // counts.size)
    for start in range(0, num_resamples, size):
        yield _draw_margins(rows, support, min(size, num_resamples - start), rng)
