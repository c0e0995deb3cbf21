"""Bootstrap draws of the count tensor, and the intervals they give. All in numpy, seeded."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats

Integers = NDArray[np.integer[Any]]

_BLOCK = 2**22  # counts that are drawn at a time


def draw_counts(counts: ArrayLike, draws: int, rng: np.random.Generator) -> Integers:
    """Test sets like this one: every row drawn anew, with as many examples as it has.

    Args:
      counts: int [G + 1, C, C], from `group_counts`.
      draws: D.
      rng: a generator.

    Returns:
      int32 [D, G + 1, C, C]: of each group (unknown ones, too) and label, multinomial over the predictions
      that occurred.
    """
    tensor = np.asarray(counts)
    drawn = np.zeros((draws, *tensor.shape), np.int32)
    for group, label in np.argwhere(tensor.sum(axis=2) > 0):
        row = tensor[group, label]
        # What did not occur cannot be drawn: with many classes that is nearly all.
        occurred = np.flatnonzero(row)
        found = row[occurred]
        drawn[:, group, label, occurred] = rng.multinomial(found.sum(), found / found.sum(), draws)
    return drawn


def percentile_intervals(
    counts: ArrayLike,
    measures: Callable[[Integers], Mapping[str, Floats]],
    *,
    draws: int,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, list[Any]]:
    """Intervals of measures that are close to sums over the examples, such as accuracy, recall and F1.

    They are the quantiles of the measure over test sets drawn anew. Not for mean |gap|, for the largest gap,
    nor for the worst recall of all groups and classes: sampling noise moves those one way, what was observed
    has it already, and every draw adds it a second time. A row with a single example never changes, and
    one with n examples varies by (n - 1) / n of what it should: with fewer than ten or so in most rows the
    intervals are too narrow.

    Args:
      counts: int [G + 1, C, C], from `group_counts`.
      measures: of drawn counts [D, G + 1, C, C]: [D] or [D, K] each.
      draws: of test sets, in all.
      level: of confidence.
      seed: of the draws.

    Returns:
      Of each measure [low, high], or K of these; NaN where a measure is.
    """
    drawn: dict[str, list[Floats]] = {}
    for block in _blocks(np.asarray(counts), draws, np.random.default_rng(seed)):
        for name, values in measures(block).items():
            drawn.setdefault(name, []).append(values)
    outside = 0.5 * (1.0 - level)
    return {
        name: np.quantile(np.concatenate(values), (outside, 1.0 - outside), axis=0).T.tolist()
        for name, values in drawn.items()
    }


def _blocks(counts: Integers, draws: int, rng: np.random.Generator) -> Iterator[Integers]:
    """The draws, a few at a time where there are many classes."""
    size = max(1, _BLOCK // counts.size)
    for start in range(0, draws, size):
        yield draw_counts(counts, min(size, draws - start), rng)
