"""The choice of a method by validation; no measure on test has an influence.

Nothing here imports JAX.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from fairkd_jax.evaluation.collect import SEED, VALIDATION, Row, to_number

VALIDATION_ACCURACY = f"{VALIDATION}accuracy"
VALIDATION_CORRECTED = f"{VALIDATION}corrected_mean_abs_disparity"


class Choice(NamedTuple):
    """Method that validation chooses.

    Attributes:
      rows: Indices of the chosen runs in the table; empty where no method can be chosen.
      reason: Sentences that explain the choice.
    """

    rows: tuple[int, ...]
    reason: str


def choose_method(
    rows: Sequence[Row],
    methods: Sequence[Hashable],
    images: Sequence[str],
    *,
    max_disparity: float | None,
    margin: float,
) -> Choice:
    """Chooses a method by its means over seeds on validation; no measure on test has an influence.

    With `max_disparity`, the choice is the most accurate method whose corrected mean absolute disparity is at
    most this bound. Without, the choice has the least corrected disparity among the methods whose accuracy is
    within `margin` of the highest accuracy. A method needs both measures for all its runs.

    Args:
      rows: Measures of the runs.
      methods: Method of each run: its config without the seed.
      images: Digest of the validation images of each run.
      max_disparity: Upper bound on the corrected disparity, or None.
      margin: Accuracy that may be lost.

    Returns:
      Indices of the chosen runs, and the reason.
    """
    if len(set(images)) > 1:
        return Choice((), "Nothing is chosen: the runs were validated on different images.")
    indices: dict[Hashable, list[int]] = {}
    for index, method in enumerate(methods):
        indices.setdefault(method, []).append(index)
    means = {method: _compute_means(rows, own) for method, own in indices.items()}
    known = {method: pair for method, pair in means.items() if pair is not None}
    if not known:
        return Choice((), "Nothing is chosen: no method has both accuracy and disparity on validation.")
    if max_disparity is not None:
        kept = [method for method, (_, disparity) in known.items() if disparity <= max_disparity]
        if not kept:
            return Choice((), f"Nothing is chosen: no method is within {max_disparity:g} on validation.")
        best = max(kept, key=lambda method: known[method][0])
        rule = f"highest accuracy on validation within a corrected disparity of {max_disparity:g}"
    else:
        highest = max(accuracy for accuracy, _ in known.values())
        kept = [method for method, (accuracy, _) in known.items() if accuracy >= highest - margin]
        best = min(kept, key=lambda method: (known[method][1], -known[method][0]))
        rule = f"least corrected disparity on validation within {margin:g} of the highest accuracy"
    num_seeds = {len(indices[method]) for method in known}
    reason = _explain_choice([rows[i] for i in indices[best]], known[best], rule, num_seeds)
    return Choice(tuple(indices[best]), reason)


def _compute_means(rows: Sequence[Row], indices: Sequence[int]) -> tuple[float, float] | None:
    """Computes the mean accuracy and corrected disparity of a method; None where a run lacks a measure."""
    accuracy, disparity = (
        float(np.mean([to_number(rows[i][key]) for i in indices]))
        for key in (VALIDATION_ACCURACY, VALIDATION_CORRECTED)
    )
    return None if math.isnan(accuracy) or math.isnan(disparity) else (accuracy, disparity)


def _explain_choice(rows: Sequence[Row], means: tuple[float, float], rule: str, num_seeds: set[int]) -> str:
    """Explains a choice.

    Args:
      rows: Measures of the chosen runs.
      means: Mean accuracy and mean corrected disparity of the runs.
      rule: Rule that the method was chosen by.
      num_seeds: Numbers of seeds of all methods.
    """
    runs = ", ".join(str(row["run"]) for row in rows)
    seeds = ", ".join(str(row[SEED]) for row in rows)
    accuracy, disparity = means
    text = (
        f"Chosen: {runs} (seeds {seeds}), {rule}: accuracy {accuracy:.4f}, disparity {disparity:.4f} there."
        " Report the measures on test with seeds that had no part in the choice."
    )
    if len(num_seeds) > 1:
        text += (
            f" Note that the methods have {min(num_seeds)} to {max(num_seeds)} seeds:"
            " a single seed may be lucky."
        )
    return text
