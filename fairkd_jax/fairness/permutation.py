"""The permutation test of no bias in any class, in numpy float64 with a seed."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, divide
from fairkd_jax.fairness.inference import NUM_RESAMPLES, find_comparable_cells

_BLOCK = 2**22  # numbers of permuted examples that are computed at a time


def compute_heterogeneity(correct: Floats, total: Floats, enough: NDArray[np.bool_]) -> Floats:
    """Computes the sum over classes of Pearson's chi-squared of recall between groups.

    With two groups the sum is that of z^2 with the pooled variance, which no permutation changes.

    Args:
      correct: Examples that were recognised, float64 [..., G, C].
      total: Examples, float64 [..., G, C].
      enough: Cells that are compared, bool [G, C].

    Returns:
      Sums, float64 [...].
    """
    correct, total = np.where(enough, correct, 0.0), np.where(enough, total, 0.0)
    pooled = divide(correct.sum(axis=-2, keepdims=True), total.sum(axis=-2, keepdims=True))
    deviation = np.where(enough, divide(correct, total) - pooled, 0.0)
    spread = pooled * (1.0 - pooled)
    squared = divide(total * deviation**2, np.broadcast_to(spread, total.shape))
    return np.nansum(squared, axis=(-2, -1))


def compute_any_bias_p(
    correct: ArrayLike,
    total: ArrayLike,
    *,
    min_count: int = 2,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> float:
    """Computes the p value of no dependence of recall on the group in any class.

    The test permutes the groups within each class.

    Args:
      correct: Examples that were recognised, int [G, C].
      total: Examples, int [G, C].
      min_count: Smallest number of examples in a cell that is compared.
      num_resamples: Number of permutations.
      seed: Seed of the permutations.

    Returns:
      The p value of sum_c z_c^2: (1 + number of permutations with a sum at least as large) /
      (1 + num_resamples). NaN where no class has two groups to compare, or where every permutation has the
      same sum: all images of each class are recognised, or none, or a single one among groups of one size.
    """
    hits, sizes = np.asarray(correct, np.int64), np.asarray(total, np.int64)
    enough = find_comparable_cells(sizes, min_count)
    if not _permutations_differ(hits, sizes, enough):
        return float("nan")
    columns = enough.any(axis=0)
    enough = enough[:, columns]
    hits, sizes = (np.where(enough, values[:, columns], 0) for values in (hits, sizes))
    observed = compute_heterogeneity(hits.astype(float), sizes.astype(float), enough)
    rng, extreme = np.random.default_rng(seed), 0
    block = max(1, _BLOCK // hits.size)
    for start in range(0, num_resamples, block):
        drawn = _permute_groups(hits, sizes, min(block, num_resamples - start), rng)
        permuted = compute_heterogeneity(drawn, np.broadcast_to(sizes.astype(float), drawn.shape), enough)
        extreme += int(np.sum(permuted >= observed * (1.0 - 1e-9)))
    return float((1 + extreme) / (1 + num_resamples))


def _permute_groups(
    hits: NDArray[np.int64], sizes: NDArray[np.int64], num_resamples: int, rng: np.random.Generator
) -> Floats:
    """Permutes the groups of the examples of each class.

    Args:
      hits: Examples that were recognised, int64 [G, K].
      sizes: Examples, int64 [G, K].
      num_resamples: Number of permutations, D.
      rng: Random number generator.

    Returns:
      Examples that were recognised, float64 [D, G, K].
    """
    # Recognised examples are distributed to the groups like balls from an urn, group after group.
    left = sizes.sum(axis=0)
    drawn = np.zeros((num_resamples, *hits.shape))
    remaining = np.broadcast_to(hits.sum(axis=0), (num_resamples, hits.shape[1])).copy()
    for group in range(len(hits) - 1):
        drawn[:, group] = rng.hypergeometric(remaining, left - remaining, sizes[group])
        remaining -= drawn[:, group].astype(np.int64)
        left = left - sizes[group]
    drawn[:, -1] = remaining
    return drawn


def _permutations_differ(
    hits: NDArray[np.int64], sizes: NDArray[np.int64], enough: NDArray[np.bool_]
) -> bool:
    """Returns whether a permutation of the groups can change the heterogeneity of some class."""
    right, images = np.where(enough, hits, 0).sum(axis=0), np.where(enough, sizes, 0).sum(axis=0)
    rarer = np.minimum(right, images - right)
    unequal = np.any(enough & (sizes * enough.sum(axis=0) != images), axis=0)
    return bool(np.any((rarer > 1) | ((rarer == 1) & unequal)))
