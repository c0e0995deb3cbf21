"""Everything reported about one model, derived from its count tensor."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.bootstrap import percentile_intervals
from fairkd_jax.fairness.distributions import bias_amplification, demographic_parity, equalized_odds
from fairkd_jax.fairness.gaps import (
    Floats,
    Gaps,
    chance_floor,
    corrected_mean_abs,
    divide,
    mean_squared_gap,
    pairwise_gaps,
)
from fairkd_jax.fairness.inference import (
    DRAWS,
    any_bias_test,
    corrected_interval,
    gap_p_values,
    holm,
    newcombe,
)

Summary = dict[str, Any]
Integers = NDArray[np.integer[Any]]
RESAMPLED = ("accuracy", "macro_recall", "f1")  # and the accuracy by group


def _classification(confusion: Integers) -> dict[str, Floats]:
    """Accuracy, precision, recall and F1 as scikit-learn defines them, with `zero_division=0`.

    Args:
      confusion: [..., C, C], rows are labels.

    Returns:
      Scores, [...] each; NaN where there are no examples. Macro averages run over the classes that occur as a
      label or as a prediction.
    """
    hits, support = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    scores = {
        "precision": np.nan_to_num(divide(hits, predicted)),
        "recall": np.nan_to_num(divide(hits, support)),
        "f1": np.nan_to_num(divide(2 * hits, support + predicted)),
    }
    total, occurs = support.sum(axis=-1), support + predicted > 0
    result = {"accuracy": divide(hits.sum(axis=-1), total)}
    for name, score in scores.items():
        result[name] = divide((score * support).sum(axis=-1), total)
        result[f"macro_{name}"] = divide(score.sum(axis=-1), occurs.sum(axis=-1))
    return result


def _accuracy_by_group(known: Integers) -> Floats:
    """[..., G, C, C] -> [..., G], NaN where a group has no examples."""
    return divide(np.trace(known, axis1=-2, axis2=-1), known.sum(axis=(-2, -1)))


def _resampled(counts: Integers) -> dict[str, Floats]:
    """The measures of which the bootstrap tells intervals: [D, G + 1, C, C] -> [D] or [D, G] each."""
    scores = _classification(counts.sum(axis=1))
    return {name: scores[name] for name in RESAMPLED} | {
        "accuracy_by_group": _accuracy_by_group(counts[:, :-1])
    }


def _not_estimable(total: Integers, min_count: int) -> list[Summary]:
    """The classes that lack a group to compare, each with its counts and a reason in words."""
    if total.shape[0] < 2:
        reason = "not estimable (there are no two groups)"
        return [{"class": c, "counts": counts.tolist(), "reason": reason} for c, counts in enumerate(total.T)]
    entries: list[Summary] = []
    for c, counts in enumerate(total.T):
        short = [f"n={n} in group {g}" for g, n in enumerate(counts) if n < min_count]
        if short:
            reason = f"not estimable ({', '.join(short)}; {min_count} needed)"
            entries.append({"class": c, "counts": counts.tolist(), "reason": reason})
    return entries


def _signed_disparity(gaps: Gaps, recall: Floats, enough: NDArray[np.bool_]) -> Floats:
    """[C]: recall in group 0 minus group 1; with more than two groups, highest minus lowest."""
    if len(gaps.pairs) == 1:
        return gaps.difference[0]
    comparable = enough.sum(axis=0) >= 2
    highest = np.max(np.where(enough, recall, -np.inf), axis=0, initial=-np.inf)
    lowest = np.min(np.where(enough, recall, np.inf), axis=0, initial=np.inf)
    return np.subtract(highest, lowest, out=np.full(recall.shape[1], np.nan), where=comparable)


def _worst_cell(recall: Floats, enough: NDArray[np.bool_]) -> Summary:
    """The class and group with the lowest recall among those with enough examples."""
    if not enough.any():
        return {"worst_group_recall": float("nan"), "worst_group": None}
    group, label = np.unravel_index(np.argmin(np.where(enough, recall, np.inf)), recall.shape)
    return {
        "worst_group_recall": float(recall[group, label]),
        "worst_group": {"group": int(group), "class": int(label)},
    }


def _certainty(correct: Integers, total: Integers, pair: tuple[int, int], gap: Floats) -> Summary:
    """What a pair's gaps can carry, class by class; NaN where the gap is."""
    rows = list(pair)
    estimable = np.isfinite(gap)
    low, high = (np.where(estimable, end, np.nan) for end in newcombe(correct[rows], total[rows]))
    p_values = np.where(estimable, gap_p_values(correct[rows], total[rows]), np.nan)
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "p": p_values.tolist(),
        "holm_p": holm(p_values).tolist(),
    }


def _disparities(correct: Integers, total: Integers, min_count: int, draws: int) -> Summary:
    """Gaps between groups, from the [G, C] counts of examples recognised and of examples."""
    gaps = pairwise_gaps(correct, total, min_count)
    usable = np.isfinite(gaps.difference)
    difference, variance = gaps.difference[usable], gaps.variance[usable]
    recall, enough = divide(correct, total), total >= min_count
    drawn: Summary = {}
    if draws:
        drawn["corrected_interval"] = list(
            corrected_interval(correct, total, min_count=min_count, draws=draws)
        )
        drawn["any_bias_p"] = any_bias_test(correct, total, min_count=min_count, draws=draws)
    return {
        "disparity": _signed_disparity(gaps, recall, enough).tolist(),
        "pairs": [
            {"groups": list(pair), "disparity": row.tolist()} | _certainty(correct, total, pair, row)
            for pair, row in zip(gaps.pairs, gaps.difference, strict=True)
        ],
        "num_gaps": int(usable.sum()),
        "mean_abs_disparity": float(np.mean(np.abs(difference))) if difference.size else float("nan"),
        "max_abs_disparity": float(np.max(np.abs(difference))) if difference.size else float("nan"),
        "floor": chance_floor(variance),
        "corrected_mean_abs_disparity": corrected_mean_abs(difference, variance),
        **drawn,
        "d2": mean_squared_gap(difference, variance),
        **_worst_cell(recall, enough),
    }


def summarize(
    counts: ArrayLike,
    *,
    min_count: int = 2,
    small_count: int = 10,
    training_counts: ArrayLike | None = None,
    draws: int = DRAWS,
) -> Summary:
    """Derives every measure from the counts of one model on one split.

    The gap d of a class between two groups is the difference of its recalls, and V = r (1 - r) / (n - 1),
    summed over the two groups, estimates the variance of d. With more than two groups the means
    (`mean_abs_disparity`, `floor`, `corrected_mean_abs_disparity`, `d2`) run over all classes of all pairs
    of groups, so that they can be compared with each other, and `disparity` is the highest minus the lowest
    recall of a class.

    Args:
      counts: [G + 1, C, C] from `group_counts`; the last row counts in accuracy, precision, recall and F1,
        never in gaps.
      min_count: A class is compared between groups that have at least so many examples of it; 2 or more.
      small_count: Classes compared with fewer examples than this in some group are listed as small.
      training_counts: int [G, C] of the training images, for the bias amplification; None leaves it out.
      draws: Of simulations, for corrected_interval, any_bias_p and intervals; 0 leaves these out.

    Returns:
      Python numbers and lists, ready for json. Whatever cannot be estimated is NaN, never 0:
      num_examples, num_known_group, accuracy, precision, recall, f1 (weighted by support), macro_precision,
      macro_recall, macro_f1, per_class (recall [C]), counts_by_class [C], accuracy_by_group [G],
      recall_by_group [G][C], counts_by_group [G][C], disparity [C] (group 0 minus group 1),
      pairs (groups, disparity [C], Newcombe's 95 % interval low [C] to high [C], p [C] of each gap and holm_p
      over the classes), num_gaps, mean_abs_disparity, max_abs_disparity, floor (the mean |d| that chance
      alone would show), corrected_mean_abs_disparity with corrected_interval (95 %), any_bias_p (of no bias
      at all), d2, worst_group_recall, worst_group, equalized_odds, demographic_parity, bias_amplification,
      intervals (95 %, of accuracy, macro_recall, f1 and each of accuracy_by_group, by the bootstrap: not of
      measures that sampling noise moves one way, see `percentile_intervals`), not_estimable (class, counts,
      reason), small_classes.
    """
    tensor = np.asarray(counts)
    if tensor.ndim != 3 or tensor.shape[0] < 1 or tensor.shape[1] != tensor.shape[2]:
        raise ValueError(f"counts are {tensor.shape}; they must be [groups + 1, classes, classes]")
    if min_count < 2:
        raise ValueError(f"min_count={min_count} leaves no variance to estimate; use 2 or more")
    tensor = tensor.astype(np.int64)
    confusion, known = tensor.sum(axis=0), tensor[:-1]
    correct, total = np.diagonal(known, axis1=1, axis2=2), known.sum(axis=2)
    compared = (total >= min_count).sum(axis=0) >= 2
    optional: Summary = {}
    if training_counts is not None:
        optional["bias_amplification"] = bias_amplification(known, training_counts)
    if draws:
        optional["intervals"] = percentile_intervals(tensor, _resampled, draws=draws)
    small = compared & ((total >= min_count) & (total < small_count)).any(axis=0)
    return {
        "num_examples": int(confusion.sum()),
        "num_known_group": int(total.sum()),
        **{name: float(score) for name, score in _classification(confusion).items()},
        "per_class": divide(np.diag(confusion), confusion.sum(axis=1)).tolist(),
        "counts_by_class": confusion.sum(axis=1).tolist(),
        "accuracy_by_group": _accuracy_by_group(known).tolist(),
        "recall_by_group": divide(correct, total).tolist(),
        "counts_by_group": total.tolist(),
        **_disparities(correct, total, min_count, draws),
        "equalized_odds": equalized_odds(known, min_count),
        "demographic_parity": demographic_parity(known, min_count),
        **optional,
        "not_estimable": _not_estimable(total, min_count),
        "small_classes": np.flatnonzero(small).tolist(),
    }


def inflation(student_summary: Summary, teacher_summary: Summary) -> dict[str, float]:
    """How much more disparity the student shows than its teacher, on the same images.

    Args:
      student_summary: From `summarize`.
      teacher_summary: From `summarize`.

    Returns:
      difference (student minus teacher) and percent (ratio - 1, times 100; NaN where the teacher's is 0) of
      the mean absolute disparity; corrected_difference and corrected_percent, the same of the corrected one.
    """
    if student_summary["counts_by_group"] != teacher_summary["counts_by_group"]:
        raise ValueError("student and teacher were not evaluated on the same images")
    result: dict[str, float] = {}
    for prefix in ("", "corrected_"):
        student = np.float64(student_summary[f"{prefix}mean_abs_disparity"])
        teacher = np.float64(teacher_summary[f"{prefix}mean_abs_disparity"])
        result[f"{prefix}difference"] = float(student - teacher)
        result[f"{prefix}percent"] = float(100.0 * (divide(student, teacher) - 1.0))
    return result
