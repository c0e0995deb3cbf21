"""All measures of one model, derived from its count tensor."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.bootstrap import Margins, compute_percentile_intervals, sum_margins
from fairkd_jax.fairness.distributions import (
    compute_bias_amplification,
    compute_demographic_parity,
    compute_equalized_odds,
)
from fairkd_jax.fairness.gaps import (
    Floats,
    Gaps,
    compute_chance_floor,
    compute_corrected_mean_abs_gap,
    compute_gaps,
    compute_mean_squared_gap,
    divide,
)
from fairkd_jax.fairness.inference import (
    NUM_RESAMPLES,
    apply_holm_correction,
    compute_corrected_interval,
    compute_gap_p_values,
    compute_newcombe_interval,
)
from fairkd_jax.fairness.permutation import compute_any_bias_p

Summary = dict[str, Any]
Integers = NDArray[np.integer[Any]]
_ROUNDING = 1e-12  # ends of an interval that differ by less are equal
RESAMPLED_MEASURES = ("accuracy", "macro_recall", "f1")  # and the accuracy by group


def _compute_scores(margins: Margins) -> dict[str, Floats]:
    """Computes accuracy, precision, recall and F1 as scikit-learn does with `zero_division=0`.

    Args:
      margins: Margins of one test set or of D test sets.

    Returns:
      Scores, [] or [D] each; NaN where there are no examples. Macro averages run over the classes that occur
      as a label or as a prediction.
    """
    hits, support, predicted = margins.hits.sum(axis=-2), margins.support.sum(axis=-2), margins.predicted
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


def _compute_accuracy_by_group(margins: Margins) -> Floats:
    """Computes the accuracy of each known group, [G] or [D, G]; NaN where a group has no examples."""
    return divide(margins.hits.sum(axis=-1), margins.support.sum(axis=-1))[..., :-1]


def _compute_resampled_measures(margins: Margins) -> dict[str, Floats]:
    """Computes the measures that have bootstrap intervals, [D] or [D, G] each."""
    scores = _compute_scores(margins)
    return {name: scores[name] for name in RESAMPLED_MEASURES} | {
        "accuracy_by_group": _compute_accuracy_by_group(margins)
    }


def _compute_intervals(counts: Integers, num_resamples: int) -> dict[str, list[Any]]:
    """Computes the bootstrap intervals of counts [G + 1, C, C]; NaN where no resample changes a measure."""
    found = compute_percentile_intervals(counts, _compute_resampled_measures, num_resamples=num_resamples)
    intervals = {}
    for name, ends in found.items():
        pairs = np.asarray(ends, np.float64)
        width = pairs[..., 1:] - pairs[..., :1]
        intervals[name] = np.where(width > _ROUNDING, pairs, np.nan).tolist()
    return intervals


def _list_inestimable_classes(total: Integers, min_count: int) -> list[Summary]:
    """Lists the classes that lack a group to compare, each with its counts and a reason in words."""
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


def _compute_signed_disparity(gaps: Gaps, recall: Floats, enough: NDArray[np.bool_]) -> Floats:
    """Computes the disparity of each class.

    Args:
      gaps: Gaps of all pairs of groups.
      recall: Recalls, float64 [G, C].
      enough: Whether a cell has enough examples, bool [G, C].

    Returns:
      Disparities, float64 [C]: recall in group 0 minus group 1. With more than two groups, the highest minus
      the lowest recall.
    """
    if len(gaps.pairs) == 1:
        return gaps.difference[0]
    comparable = enough.sum(axis=0) >= 2
    highest = np.max(np.where(enough, recall, -np.inf), axis=0, initial=-np.inf)
    lowest = np.min(np.where(enough, recall, np.inf), axis=0, initial=np.inf)
    return np.subtract(highest, lowest, out=np.full(recall.shape[1], np.nan), where=comparable)


def _find_worst_cell(recall: Floats, enough: NDArray[np.bool_]) -> Summary:
    """Finds the class and group with the lowest recall among the cells with enough examples."""
    if not enough.any():
        return {"worst_group_recall": float("nan"), "worst_group": None}
    group, label = np.unravel_index(np.argmin(np.where(enough, recall, np.inf)), recall.shape)
    return {
        "worst_group_recall": float(recall[group, label]),
        "worst_group": {"group": int(group), "class": int(label)},
    }


def _compute_pair_statistics(
    correct: Integers, total: Integers, pair: tuple[int, int], gap: Floats
) -> Summary:
    """Computes intervals and p values of one pair's gaps, class by class; NaN where the gap is NaN."""
    rows = list(pair)
    estimable = np.isfinite(gap)
    ends = compute_newcombe_interval(correct[rows], total[rows])
    low, high = (np.where(estimable, end, np.nan) for end in ends)
    p_values = np.where(estimable, compute_gap_p_values(correct[rows], total[rows]), np.nan)
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "p": p_values.tolist(),
        "holm_p": apply_holm_correction(p_values).tolist(),
    }


def _compute_disparities(correct: Integers, total: Integers, min_count: int, num_resamples: int) -> Summary:
    """Computes all measures of gaps between groups.

    Args:
      correct: Examples that were recognised, int [G, C].
      total: Examples, int [G, C].
      min_count: Smallest number of examples in a cell that is compared.
      num_resamples: Number of simulations; 0 leaves out `corrected_interval` and `any_bias_p`.

    Returns:
      The part of a summary that is about gaps; see `summarize`.
    """
    gaps = compute_gaps(correct, total, min_count)
    usable = np.isfinite(gaps.difference)
    difference, variance = gaps.difference[usable], gaps.variance[usable]
    recall, enough = divide(correct, total), total >= min_count
    simulated: Summary = {}
    if num_resamples:
        options = {"min_count": min_count, "num_resamples": num_resamples}
        simulated["corrected_interval"] = list(compute_corrected_interval(correct, total, **options))
        simulated["any_bias_p"] = compute_any_bias_p(correct, total, **options)
    return {
        "disparity": _compute_signed_disparity(gaps, recall, enough).tolist(),
        "pairs": [
            {"groups": list(pair), "disparity": row.tolist()}
            | _compute_pair_statistics(correct, total, pair, row)
            for pair, row in zip(gaps.pairs, gaps.difference, strict=True)
        ],
        "num_gaps": int(usable.sum()),
        "mean_abs_disparity": float(np.mean(np.abs(difference))) if difference.size else float("nan"),
        "max_abs_disparity": float(np.max(np.abs(difference))) if difference.size else float("nan"),
        "floor": compute_chance_floor(variance),
        "corrected_mean_abs_disparity": compute_corrected_mean_abs_gap(difference, variance),
        **simulated,
        "d2": compute_mean_squared_gap(difference, variance),
        **_find_worst_cell(recall, enough),
    }


def summarize(
    counts: ArrayLike,
    *,
    min_count: int = 2,
    small_count: int = 10,
    training_counts: ArrayLike | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> Summary:
    """Computes every measure of one model on one split from its counts.

    The gap d of a class between two groups is the difference of its recalls. The sampling variance of d is
    estimated by V = r (1 - r) / (n - 1), summed over the two groups. With more than two groups, four measures
    are means over all classes of all pairs of groups, so they can be compared: `mean_abs_disparity`, `floor`,
    `corrected_mean_abs_disparity` and `d2`.

    Args:
      counts: Counts from `group_counts`, int [G + 1, C, C]. The last row counts in accuracy, precision,
        recall and F1, never in gaps.
      min_count: Smallest number of examples in a cell (a group and a class) that is compared; 2 or more.
      small_count: Compared classes with fewer examples than this in some group are listed as small.
      training_counts: Training images, int [G, C], for the bias amplification; None leaves it out.
      num_resamples: Number of simulations for corrected_interval, any_bias_p and intervals; 0 leaves out
        these three.

    Returns:
      Python numbers and lists, ready for JSON, NaN (never 0) where a number cannot be estimated:
      num_examples, num_known_group;
      accuracy, precision, recall, f1 (weighted by support), macro_precision, macro_recall, macro_f1;
      per_class (recall [C]), counts_by_class [C], accuracy_by_group [G], recall_by_group [G][C],
      counts_by_group [G][C];
      disparity [C] (group 0 minus group 1; with more than two groups the highest minus the lowest recall);
      pairs (groups, disparity [C], Newcombe's 95 % interval low [C] to high [C], p [C] of each gap, holm_p
      over the classes), num_gaps;
      mean_abs_disparity, max_abs_disparity, floor (the mean |d| that chance alone would show),
      corrected_mean_abs_disparity, corrected_interval (95 %), d2 (mean squared gap);
      any_bias_p (p value of no bias in any class; NaN where no permutation of the groups changes the gaps, as
      for a model that is always or never right), worst_group_recall, worst_group;
      equalized_odds, demographic_parity, bias_amplification;
      intervals (95 %, from the bootstrap, of accuracy, macro_recall, f1 and each accuracy_by_group; NaN where
      no resample changes the measure; not of measures that sampling noise moves in one direction, see
      `compute_percentile_intervals`);
      not_estimable (class, counts, reason), small_classes.

    Raises:
      ValueError: The counts have a wrong shape, or `min_count` is below 2.
    """
    tensor = np.asarray(counts).astype(np.int64, copy=False)
    if tensor.ndim != 3 or tensor.shape[0] < 1 or tensor.shape[1] != tensor.shape[2]:
        raise ValueError(f"counts are {tensor.shape}; they must be [groups + 1, classes, classes]")
    if min_count < 2:
        raise ValueError(f"min_count={min_count} leaves no variance to estimate; use 2 or more")
    return _compute_summary(tensor, min_count, small_count, training_counts, num_resamples)


def _compute_summary(
    tensor: NDArray[np.int64],
    min_count: int,
    small_count: int,
    training_counts: ArrayLike | None,
    num_resamples: int,
) -> Summary:
    """Computes a summary from checked counts, int64 [G + 1, C, C]; see `summarize`."""
    margins, known = sum_margins(tensor), tensor[:-1]
    correct, total = margins.hits[:-1], margins.support[:-1]
    hits_by_class, by_class = margins.hits.sum(axis=0), margins.support.sum(axis=0)
    compared = (total >= min_count).sum(axis=0) >= 2
    optional: Summary = {}
    if training_counts is not None:
        optional["bias_amplification"] = compute_bias_amplification(known, training_counts)
    if num_resamples:
        optional["intervals"] = _compute_intervals(tensor, num_resamples)
    small = compared & ((total >= min_count) & (total < small_count)).any(axis=0)
    return {
        "num_examples": int(by_class.sum()),
        "num_known_group": int(total.sum()),
        **{name: float(score) for name, score in _compute_scores(margins).items()},
        "per_class": divide(hits_by_class, by_class).tolist(),
        "counts_by_class": by_class.tolist(),
        "accuracy_by_group": _compute_accuracy_by_group(margins).tolist(),
        "recall_by_group": divide(correct, total).tolist(),
        "counts_by_group": total.tolist(),
        **_compute_disparities(correct, total, min_count, num_resamples),
        "equalized_odds": compute_equalized_odds(known, min_count),
        "demographic_parity": compute_demographic_parity(known, min_count),
        **optional,
        "not_estimable": _list_inestimable_classes(total, min_count),
        "small_classes": np.flatnonzero(small).tolist(),
    }


def compute_inflation(student_summary: Summary, teacher_summary: Summary) -> dict[str, float]:
    """Computes how much more disparity the student shows than its teacher, on the same images.

    Args:
      student_summary: Summary of the student, from `summarize`.
      teacher_summary: Summary of the teacher, from `summarize`.

    Returns:
      `difference` (student minus teacher) and `percent` of the mean absolute disparity;
      `corrected_difference` and `corrected_percent` of the corrected mean absolute disparity. A percentage
      is (ratio - 1) times 100; NaN where the teacher's disparity is 0.

    Raises:
      ValueError: The two models were evaluated on different images.
    """
    if student_summary["counts_by_group"] != teacher_summary["counts_by_group"]:
        raise ValueError("student and teacher were not evaluated on the same images; evaluate both again")
    result: dict[str, float] = {}
    for prefix in ("", "corrected_"):
        student = np.float64(student_summary[f"{prefix}mean_abs_disparity"])
        teacher = np.float64(teacher_summary[f"{prefix}mean_abs_disparity"])
        result[f"{prefix}difference"] = float(student - teacher)
        result[f"{prefix}percent"] = float(100.0 * (divide(student, teacher) - 1.0))
    return result
