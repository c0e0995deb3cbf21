"""What changed between two models on the same images: gaps of classes, and cells of the confusion matrix."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from fairkd_jax.fairness.gaps import Floats, divide
from fairkd_jax.fairness.inference import NUM_RESAMPLES, apply_holm_correction, compute_newcombe_interval

LEVEL = 0.95


def compute_gap_corrections(
    outcomes: ArrayLike,
    *,
    pair: tuple[int, int] = (0, 1),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Computes by how many percent a model has corrected the gap of each class between two groups.

    The correction is 100 (1 - |gap after| / |gap before|): 100 where the gap is gone, negative where it has
    grown. It says nothing where the gap before is not known to differ from 0; there it is NaN.

    Args:
      outcomes: Counts from `count_paired_outcomes`, int [4, G, C], of the model before and the model after.
      pair: The two groups.
      num_resamples: Number of resamples of the images for the intervals.
      seed: Random seed of the resamples.

    Returns:
      `before` and `after`, the gaps of recall (first minus second group); `percent`, and its 95 % interval
      `low` to `high`, from test sets drawn within each cell; [C] each. A share of half an image is added to
      the four outcomes of a cell, so that an outcome that was not seen can be drawn.
    """
    table = np.asarray(outcomes, np.int64)[:, list(pair)]
    total = table.sum(axis=0)
    before, after = table[0] + table[1], table[0] + table[2]
    gaps = [shares[0] - shares[1] for shares in (divide(before, total), divide(after, total))]
    low, high = compute_newcombe_interval(before, total)
    is_known = (low > 0) | (high < 0)
    percent = np.full(total.shape[1], np.nan)
    percent[is_known] = 100 * (1 - np.abs(gaps[1][is_known]) / np.abs(gaps[0][is_known]))
    ends = np.full((2, total.shape[1]), np.nan)
    rng = np.random.default_rng(seed)
    for c in np.flatnonzero(is_known).tolist():
        # [D, 2, 4]: outcomes of each group in the drawn test sets.
        shares = (table[:, :, c] + 0.125) / (total[:, c] + 0.5)
        drawn = np.stack([rng.multinomial(total[g, c], shares[:, g], num_resamples) for g in (0, 1)], axis=1)
        first, second = (drawn[..., [0, k]].sum(-1) / total[:, c] for k in (1, 2))
        old, new = np.abs(first[:, 0] - first[:, 1]), np.abs(second[:, 0] - second[:, 1])
        kept = old > 0
        ends[:, c] = np.quantile(100 * (1 - new[kept] / old[kept]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "before": gaps[0].tolist(),
        "after": gaps[1].tolist(),
        "percent": percent.tolist(),
        "low": ends[0].tolist(),
        "high": ends[1].tolist(),
    }


def compute_confusion_shift(label: ArrayLike, before: ArrayLike, after: ArrayLike) -> dict[str, Any]:
    """Computes which cells of the confusion matrix have changed between two models.

    A cell changes by the images that only one of the models puts there. If the models did not differ, each of
    these images would be as likely to be the one's as the other's (McNemar 1947, the exact form). Holm's
    correction runs over all cells in which the models differ.

    Args:
      label: Labels, int [N].
      before: Predictions of the first model, int [N].
      after: Predictions of the second model, int [N].

    Returns:
      The K cells on which the models differ, in order, at most two for each image: `label` and `prediction`
      [K]; `change` [K], images, second minus first model; `p` and `holm_p` [K].
    """
    labels, first, second = (np.asarray(values) for values in (label, before, after))
    differs = first != second
    pairs = [np.stack([labels[differs], own[differs]], axis=1) for own in (first, second)]
    # Of C^2 cells nearly all are alike, where there are many classes.
    cells, place = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
    halves = np.split(place.ravel(), 2)
    lost, won = (np.bincount(half, minlength=len(cells)) for half in halves)
    p: Floats = np.minimum(1.0, 2 * binom.cdf(np.minimum(lost, won), lost + won, 0.5))
    return {
        "label": cells[:, 0].tolist(),
        "prediction": cells[:, 1].tolist(),
        "change": (won - lost).tolist(),
        "p": p.tolist(),
        "holm_p": apply_holm_correction(p).tolist(),
    }
