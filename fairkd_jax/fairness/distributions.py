"""How whole distributions of predictions differ between groups. All in numpy float64."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, divide


def _largest_distance(shares: Floats, enough: NDArray[np.bool_]) -> Floats:
    """The largest total variation between two groups: [G, ..., C] and [G, ...] -> [...], NaN where none."""
    distances = [
        np.where(enough[a] & enough[b], 0.5 * np.abs(shares[a] - shares[b]).sum(axis=-1), np.nan)
        for a, b in combinations(range(len(shares)), 2)
    ]
    if not distances:
        return np.full(enough.shape[1:], np.nan)
    stacked = np.stack(distances)
    largest = np.where(np.isnan(stacked), -np.inf, stacked).max(axis=0)
    return np.where(np.isfinite(largest), largest, np.nan)


def equalized_odds(known: NDArray[np.int64], min_count: int) -> dict[str, Any]:
    """Multi-class equalized odds (Hardt et al. 2016): predictions given the label must not tell the group.

    Args:
      known: [G, C, C], counts of group, label and prediction.
      min_count: groups with fewer examples of a label are left out of it.

    Returns:
      `per_class` [C], the total variation between the groups' predictions of a label (the largest of all
      pairs), its `mean` and its `worst`; NaN where nothing can be compared.
    """
    total = known.sum(axis=2)
    per_class = _largest_distance(divide(known, total[..., None]), total >= min_count)
    return {"per_class": per_class.tolist(), **_mean_and_worst(per_class)}


def demographic_parity(known: NDArray[np.int64], min_count: int) -> dict[str, Any]:
    """Demographic parity: predictions must not tell the group, whatever the label.

    Args:
      known: [G, C, C], counts of group, label and prediction.
      min_count: groups with fewer examples are left out.

    Returns:
      `total_variation` between the groups' predictions (the largest of all pairs), and `per_class` [C], the
      range of the shares of a prediction over the groups, with its `worst`; NaN without two groups.
    """
    predicted, total = known.sum(axis=1), known.sum(axis=(1, 2))
    enough = total >= min_count
    shares = divide(predicted, total[:, None])
    if enough.sum() < 2:
        nothing = float("nan")
        return {"total_variation": nothing, "per_class": [nothing] * known.shape[1], "worst": nothing}
    per_class = shares[enough].max(axis=0) - shares[enough].min(axis=0)
    return {
        "total_variation": float(_largest_distance(shares, enough)),
        "per_class": per_class.tolist(),
        "worst": float(per_class.max()),
    }


def bias_amplification(known: NDArray[np.int64], training_counts: ArrayLike) -> float:
    """Directional bias amplification, group to prediction (Wang and Russakovsky 2021, equation 1).

    Args:
      known: [G, C, C], counts of group, label and prediction.
      training_counts: [G, C], of the training images; they say which way each pair of group and class leans.

    Returns:
      The mean over groups and classes of P(prediction | group) - P(label | group), with the sign turned for
      pairs that are rarer in training than by chance: above 0 where predictions lean further than labels do.
      NaN where a group has no examples.
    """
    training = np.asarray(training_counts, np.float64)
    expected = training.sum(axis=1, keepdims=True) * training.sum(axis=0, keepdims=True) / training.sum()
    lean = np.where(training > expected, 1.0, -1.0)
    total = known.sum(axis=(1, 2))[:, None]
    change = divide(known.sum(axis=1), total) - divide(known.sum(axis=2), total)
    return float(np.mean(lean * change))


def fidelity(
    prediction: ArrayLike, reference: ArrayLike, group: ArrayLike, num_groups: int
) -> dict[str, Any]:
    """How often a model predicts what another one does, such as a student its teacher.

    Args:
      prediction: int [N].
      reference: int [N], the other model's.
      group: int [N], -1 where unknown: counted in `agreement` alone.
      num_groups: G.

    Returns:
      `agreement`, a share of all, and `agreement_by_group` [G]; NaN where there are no images.
    """
    same, groups = np.asarray(prediction) == np.asarray(reference), np.asarray(group)
    members = groups[None, :] == np.arange(num_groups)[:, None]
    return {
        "agreement": float(divide(same.sum(), same.size)),
        "agreement_by_group": divide((members & same).sum(axis=1), members.sum(axis=1)).tolist(),
    }


def _mean_and_worst(values: Floats) -> dict[str, float]:
    usable = values[np.isfinite(values)]
    if not usable.size:
        return {"mean": float("nan"), "worst": float("nan")}
    return {"mean": float(usable.mean()), "worst": float(usable.max())}
