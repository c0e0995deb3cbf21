"""Comparison of two models on the same images, in numpy float64 with a seed."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, compute_mean_abs_gap, divide
from fairkd_jax.fairness.inference import NUM_RESAMPLES, find_comparable_cells

_ROUNDING = 1e-12  # shares that differ by less are equal


def count_paired_outcomes(
    group: ArrayLike,
    label: ArrayLike,
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: int,
    classes: int,
) -> NDArray[np.int64]:
    """Counts the images that both, one or neither of two models recognise.

    Args:
      group: Groups, int [N]; images of unknown group (-1) are not counted.
      label: Labels, int [N].
      correct_a: Whether model A recognises the image, bool [N].
      correct_b: Whether model B recognises the image, bool [N].
      groups: Number of groups, G.
      classes: Number of classes, C.

    Returns:
      Counts, int64 [4, G, C]: both models, A alone, B alone, neither.
    """
    g, y = np.asarray(group), np.asarray(label)
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    counts = np.zeros((4, groups, classes), np.int64)
    known = (g >= 0) & (g < groups)
    outcome = np.where(a, np.where(b, 0, 1), np.where(b, 2, 3))
    np.add.at(counts, (outcome[known], g[known], y[known]), 1)
    return counts


def compare_paired_outcomes(
    outcomes: ArrayLike,
    *,
    min_count: int = 2,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares the mean |gap| of two models on the same images.

    Args:
      outcomes: Counts from `count_paired_outcomes`, [4, G, C].
      min_count: Smallest number of examples in a cell that is compared.
      level: Confidence level of the interval.
      num_resamples: Number of permutations, and of bootstrap samples.
      seed: Seed of both.

    Returns:
      `difference`, A minus B; `p`, from a permutation that swaps the models' answers image by image; `low`
      and `high`, the ends of an interval about the difference. A swap changes only images on which the
      answers differ. The interval takes the spread of bootstrap samples about their mean, with images
      resampled within each group and class. NaN where nothing can be compared. `p` is NaN too where the
      answers differ on a single image or on none, for all permutations are alike then. `low` and `high` are
      NaN too where all bootstrap samples are alike.
    """
    both, only_a, only_b, neither = np.asarray(outcomes, np.int64)
    total = both + only_a + only_b + neither
    rng = np.random.default_rng(seed)

    def compute_difference(a: NDArray[Any], b: NDArray[Any]) -> Floats:
        return compute_mean_abs_gap(a, total, min_count) - compute_mean_abs_gap(b, total, min_count)

    observed = float(compute_difference((both + only_a).astype(float), (both + only_b).astype(float)))
    discordant = only_a + only_b
    swapped = rng.binomial(discordant, 0.5, size=(num_resamples, *total.shape))
    permuted = compute_difference(both + swapped, both + discordant - swapped)
    drawn = rng.multinomial(
        total,
        np.moveaxis(divide(np.asarray(outcomes), np.maximum(total, 1)), 0, -1),
        (num_resamples, *total.shape),
    )
    sampled = compute_difference(drawn[..., 0] + drawn[..., 1], drawn[..., 0] + drawn[..., 2])
    outside = 0.5 * (1.0 - level)
    low, high = np.quantile(sampled, (outside, 1.0 - outside))
    extreme = np.sum(np.abs(permuted) >= abs(observed) * (1.0 - 1e-9))
    compared = discordant[find_comparable_cells(total, min_count)]
    middle = observed - np.mean(sampled) if is_spread(sampled) else float("nan")
    return {
        "difference": observed,
        "p": float((1 + extreme) / (1 + num_resamples)) if compared.sum() > 1 else float("nan"),
        "low": float(middle + low),
        "high": float(middle + high),
    }


def is_spread(values: Floats) -> NDArray[np.bool_]:
    """Returns whether values differ by more than rounding along the last axis: [..., D] -> bool [...]."""
    return np.asarray(np.ptp(values, axis=-1) > _ROUNDING)
