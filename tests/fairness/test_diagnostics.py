"""Collapse and over-correction are told from counts, and not from noise."""

import numpy as np
import pytest

from fairkd_jax.fairness import diagnose

LEAN = np.array([[90, 10, 90, 10], [10, 90, 10, 90]])
CLASSES = 4


def counts_of(recall, n=200, wrong=None):
    """Counts of a model with a recall [G, C]; what it misses falls to the next class, or to `wrong`."""
    recall = np.asarray(recall)
    tensor = np.zeros((len(recall) + 1, CLASSES, CLASSES), int)
    for g in range(len(recall)):
        for c in range(CLASSES):
            hits = round(n * recall[g, c])
            tensor[g, c, c] += hits
            tensor[g, c, (c + 1) % CLASSES if wrong is None else wrong] += n - hits
    return tensor


def test_an_even_model_gets_no_warning():
    found = diagnose(counts_of(np.full((2, CLASSES), 0.8)), LEAN)
    assert found["warnings"] == []
    assert found["classes_predicted"] == found["classes_present"] == 4
    assert found["smallest_class_recall"] == pytest.approx(0.8)
    assert found["prediction_entropy"] == pytest.approx(np.log(4))
    assert found["skew_aligned_gap"] == 0


def test_a_gap_in_the_direction_of_training_is_no_over_correction():
    biased = np.where(LEAN > 50, 0.9, 0.6)
    found = diagnose(counts_of(biased), LEAN)
    assert found["skew_aligned_gap"] == pytest.approx(0.3)
    assert found["reversed_gaps"] == 0
    assert found["warnings"] == []


def test_reversed_gaps_are_an_over_correction():
    reversed_recall = np.where(LEAN > 50, 0.6, 0.9)
    found = diagnose(counts_of(reversed_recall), LEAN)
    assert found["skew_aligned_gap"] == pytest.approx(-0.3)
    assert found["reversed_gaps"] == 1
    (sentence,) = found["warnings"]
    assert sentence.startswith("over-correction: recall is 0.300 lower on average")


def test_noise_alone_is_seldom_called_an_over_correction():
    rng = np.random.default_rng(0)
    warned = 0
    for _ in range(400):
        tensor = np.zeros((3, CLASSES, CLASSES), int)
        for g in range(2):
            for c in range(CLASSES):
                hits = rng.binomial(16, 0.8)
                tensor[g, c, c], tensor[g, c, (c + 1) % CLASSES] = hits, 16 - hits
        warned += bool(diagnose(tensor, LEAN)["warnings"])
    assert warned <= 0.05 * 400  # beyond two standard errors: 2.3 % expected


def test_classes_that_are_never_predicted_are_a_collapse():
    tensor = counts_of(np.array([[0.9, 0.0, 0.9, 0.9]] * 2), wrong=0)
    found = diagnose(tensor, LEAN)
    assert found["classes_predicted"] == 3
    assert found["smallest_class_recall"] == 0
    assert found["warnings"][0] == "collapse: 1 of 4 classes are never predicted"
    narrow = diagnose(counts_of(np.array([[1.0, 0.1, 0.1, 0.1]] * 2), wrong=0), LEAN)
    assert narrow["warnings"][0].startswith("collapse: the predictions' entropy is")


def test_more_groups_and_nothing_to_compare():
    three = np.array([[80, 10, 5, 5], [10, 80, 5, 5], [10, 10, 90, 90]])
    found = diagnose(counts_of(np.where(three > 50, 0.95, 0.6)), three)
    assert found["skew_aligned_gap"] > 0.1
    empty = diagnose(np.zeros((3, CLASSES, CLASSES), int), LEAN)
    assert empty["warnings"] == []
    assert np.isnan(empty["skew_aligned_gap"])
    assert np.isnan(empty["smallest_class_recall"])
    alone = diagnose(counts_of(np.full((1, CLASSES), 0.5)), LEAN[:1])
    assert np.isnan(alone["skew_aligned_gap"])
