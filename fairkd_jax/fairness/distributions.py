"""Differences between the groups' distributions of predictions, in numpy float64."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, divide

_BLOCK = 2**22  # shares that are compared at a time


def _compute_largest_distance(shares: Floats, enough: NDArray[np.bool_]) -> Floats:
    """Computes the largest total variation distance between two groups.

    Args:
      shares: Shares of the predictions, float64 [G, ..., C].
      enough: Whether a group has enough examples, bool [G, ...].

    Returns:
      Distances [...]; NaN where no two groups have enough examples.
    """
    distances = [
        np.where(enough[a] & enough[b], 0.5 * np.abs(shares[a] - shares[b]).sum(axis=-1), np.nan)
        for a, b in combinations(range(len(shares)), 2)
    ]
    if not distances:
        return np.full(enough.shape[1:], np.nan)
    stacked = np.stack(distances)
    largest = np.where(np.isnan(stacked), -np.inf, stacked).max(axis=0)
    return np.where(np.isfinite(largest), largest, np.nan)


def compute_equalized_odds(known: NDArray[np.int64], min_count: int) -> dict[str, Any]:
    """Computes the violation of multi-class equalized odds (Hardt et al. 2016).

    Equalized odds holds where predictions given the label do not depend on the group.

    Args:
      known: Counts of known groups, int64 [G, C, C]: group, label, prediction.
      min_count: Smallest number of examples of a label in a group that is compared.

    Returns:
      `per_class` [C], the total variation distance between the groups' predictions for a label (the largest
      of all pairs); the `mean` and the `worst` over the classes. NaN where no groups can be compared.
    """
    total = known.sum(axis=2)
    size = max(1, _BLOCK // max(1, known.shape[0] * known.shape[2]))
    parts = [slice(start, start + size) for start in range(0, known.shape[1], size)]
    per_class = np.concatenate(
        [
            _compute_largest_distance(
                divide(known[:, part], total[:, part, None]), total[:, part] >= min_count
            )
            for part in parts
        ]
    )
    return {"per_class": per_class.tolist(), **_compute_mean_and_worst(per_class)}


def compute_demographic_parity(known: NDArray[np.int64], min_count: int) -> dict[str, Any]:
    """Computes the violation of demographic parity.

    Demographic parity holds where predictions do not depend on the group, for all labels together.

    Args:
      known: Counts of known groups, int64 [G, C, C]: group, label, prediction.
      min_count: Smallest number of examples of a group that is compared.

    Returns:
      `total_variation`, the distance between the groups' predictions (the largest of all pairs);
      `per_class` [C], the range over the groups of the share of a prediction; `worst`, the largest of these
      ranges. NaN without two groups.
    """
    predicted, total = known.sum(axis=1), known.sum(axis=(1, 2))
    enough = total >= min_count
    shares = divide(predicted, total[:, None])
    if enough.sum() < 2:
        nothing = float("nan")
        return {"total_variation": nothing, "per_class": [nothing] * known.shape[1], "worst": nothing}
    per_class = shares[enough].max(axis=0) - shares[enough].min(axis=0)
    return {
        "total_variation": float(_compute_largest_distance(shares, enough)),
        "per_class": per_class.tolist(),
        "worst": float(per_class.max()),
    }


def compute_bias_amplification(known: NDArray[np.int64], training_counts: ArrayLike) -> float:
    """Computes directional bias amplification, group to prediction (Wang and Russakovsky 2021, equation 1).

    Args:
      known: Counts of known groups, int64 [G, C, C]: group, label, prediction.
      training_counts: Training images by group and class, [G, C]. The counts give the direction of the skew
        of each pair of group and class.

    Returns:
      The mean over groups and classes of P(prediction | group) - P(label | group). The sign is reversed for
      pairs that are rarer in training than by chance. The mean is above 0 where predictions are more skewed
      than labels. NaN where a group has no examples.
    """
    training = np.asarray(training_counts, np.float64)
    expected = training.sum(axis=1, keepdims=True) * training.sum(axis=0, keepdims=True) / training.sum()
    skew = np.where(training > expected, 1.0, -1.0)
    total = known.sum(axis=(1, 2))[:, None]
    change = divide(known.sum(axis=1), total) - divide(known.sum(axis=2), total)
    return float(np.mean(skew * change))


def compute_fidelity(
    prediction: ArrayLike, reference: ArrayLike, group: ArrayLike, num_groups: int
) -> dict[str, Any]:
    """Computes how often a model predicts the same class as a reference model, for example its teacher.

    Args:
      prediction: Predicted classes, int [N].
      reference: Predicted classes of the reference model, int [N].
      group: Groups, int [N]; images of unknown group (-1) count in `agreement` alone.
      num_groups: Number of groups, G.

    Returns:
      `agreement`, the share of all images, and `agreement_by_group` [G]; NaN where there are no images.
    """
    same, groups = np.asarray(prediction) == np.asarray(reference), np.asarray(group)
    members = groups[None, :] == np.arange(num_groups)[:, None]
    return {
        "agreement": float(divide(same.sum(), same.size)),
        "agreement_by_group": divide((members & same).sum(axis=1), members.sum(axis=1)).tolist(),
    }


def _compute_mean_and_worst(values: Floats) -> dict[str, float]:
    usable = values[np.isfinite(values)]
    if not usable.size:
        return {"mean": float("nan"), "worst": float("nan")}
    return {"mean": float(usable.mean()), "worst": float(usable.max())}
