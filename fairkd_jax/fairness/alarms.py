"""Signs that a student is debiased at the price of what it shall do: collapse, and over-correction."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairkd_jax.fairness.gaps import Floats, divide, pairs_of

_ERRORS = 2.0  # standard errors beyond which gaps are called turned over
_NARROW = 0.8  # of the labels' entropy, below which predictions are called narrow


def alarms(
    counts: ArrayLike, training_counts: ArrayLike, *, min_count: int = 2, small_count: int = 10
) -> dict[str, Any]:
    """Looks for collapse and over-correction in the counts of one model.

    Of two groups, a class *leans* to the one of whose training images it is the larger share. A model that
    has learnt this recognises the class better in that group: the gap in recall, signed so, is above 0.
    Debiasing shall take it to 0, and over-corrects where it falls below.

    Args:
      counts: [G + 1, C, C] from `group_counts`.
      training_counts: [G, C], training images by known group and class.
      min_count: classes are compared between groups that have at least so many images of them.
      small_count: a class must have so many images to be missed among the predictions.

    Returns:
      `classes_predicted` and `classes_present` (as labels); `smallest_class_recall`, of the classes with
      `small_count` images; `prediction_entropy` and `label_entropy`, of the frequencies, in nats;
      `leaning_gap`, the mean signed gap over all classes of all pairs of groups, with its standard error
      `leaning_gap_error`, and `gaps_turned`, the share of the gaps below 0; and `raised`, a sentence for each
      alarm. NaN where nothing can be estimated.
    """
    tensor = np.asarray(counts, np.int64)
    confusion, known = tensor.sum(axis=0), tensor[:-1]
    support, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    enough = support >= small_count
    recall = divide(hits, support)[enough]
    missed = np.flatnonzero(enough & (predicted == 0))
    found: dict[str, Any] = {
        "classes_predicted": int(np.count_nonzero(predicted)),
        "classes_present": int(np.count_nonzero(support)),
        "smallest_class_recall": float(recall.min()) if recall.size else float("nan"),
        "prediction_entropy": _entropy(predicted),
        "label_entropy": _entropy(support),
        **_leaning(known, np.asarray(training_counts, np.float64), min_count),
    }
    raised = []
    if missed.size:
        raised.append(f"collapse: {missed.size} of {np.count_nonzero(enough)} classes are never predicted")
    elif enough.any() and found["prediction_entropy"] < _NARROW * found["label_entropy"]:
        raised.append(
            f"collapse: the predictions' entropy is {found['prediction_entropy']:.2f} nats, the labels'"
            f" {found['label_entropy']:.2f}"
        )
    if found["leaning_gap"] < -_ERRORS * found["leaning_gap_error"]:
        raised.append(
            f"over-correction: recall is {-found['leaning_gap']:.3f} lower on average in the group that a"
            f" class leans to in training (standard error {found['leaning_gap_error']:.3f})"
        )
    return found | {"raised": raised}


def _entropy(numbers: NDArray[np.int64]) -> float:
    """Of frequencies, in nats; NaN where there are none."""
    if not numbers.sum():
        return float("nan")
    shares = numbers[numbers > 0] / numbers.sum()
    return float(-np.sum(shares * np.log(shares)))


def _leaning(known: NDArray[np.int64], training: Floats, min_count: int) -> dict[str, float]:
    """The mean gap in recall, signed by which group of the pair a class leans to in training."""
    total, correct = known.sum(axis=2), np.diagonal(known, axis1=1, axis2=2)
    # Smoothed: a recall of 0 or 1 in a few images does not make a gap certain.
    smooth = divide(correct + 1.0, total + 2.0)
    variance = divide(smooth * (1.0 - smooth), total)
    recall = divide(correct, total)
    share = divide(training, training.sum(axis=1, keepdims=True))
    _, first, second = pairs_of(len(known))
    enough = (total >= min_count)[first] & (total >= min_count)[second]
    lean = np.sign(np.nan_to_num(share[first] - share[second]))
    usable = enough & (lean != 0)
    number = np.count_nonzero(usable)
    if not number:
        return dict.fromkeys(("leaning_gap", "leaning_gap_error", "gaps_turned"), float("nan"))
    gap = (lean * (recall[first] - recall[second]))[usable]
    # The mean is linear in the recalls, of which pairs share some.
    factor = np.zeros_like(recall)
    np.add.at(factor, first, np.where(usable, lean, 0.0))
    np.add.at(factor, second, -np.where(usable, lean, 0.0))
    error = np.sqrt(np.sum(factor**2 * np.where(factor == 0, 0.0, variance))) / number
    return {
        "leaning_gap": float(gap.mean()),
        "leaning_gap_error": float(error),
        "gaps_turned": float(np.mean(gap < 0)),
    }
