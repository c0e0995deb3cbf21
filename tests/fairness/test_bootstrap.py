"""Draws of the count tensor, and what their intervals cover."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from fairkd_jax.fairness import bootstrap, summarize
from fairkd_jax.fairness.bootstrap import compute_percentile_intervals, resample_margins
from fairkd_jax.fairness.simulation import make_wider_counts

NAMES = ("accuracy", "macro_recall", "f1", "accuracy_by_group")
COUNTS = np.random.default_rng(0).integers(0, 9, (3, 4, 4))
COUNTS[0, 1], COUNTS[2, 3], COUNTS[1, 2, :2] = 0, 0, 0


def accuracy(margins):
    return {"accuracy": margins.hits.sum(axis=(1, 2)) / margins.support.sum()}


def draw_whole_counts(counts, number, rng):
    """Whole confusion matrices, row by row, as they were drawn before margins were enough."""
    drawn = np.zeros((number, *counts.shape), int)
    for group, label in np.ndindex(counts.shape[:2]):
        row = counts[group, label]
        if row.any():
            occurs = row > 0
            drawn[:, group, label, occurs] = rng.multinomial(row.sum(), row[occurs] / row.sum(), number)
    return drawn


def test_the_margins_are_those_of_whole_confusion_matrices():
    margins = resample_margins(COUNTS, 300, np.random.default_rng(1))
    drawn = draw_whole_counts(COUNTS, 300, np.random.default_rng(1))
    np.testing.assert_array_equal(margins.hits, drawn.diagonal(axis1=2, axis2=3))
    np.testing.assert_array_equal(np.broadcast_to(margins.support, (300, 3, 4)), drawn.sum(axis=3))
    np.testing.assert_array_equal(margins.predicted, drawn.sum(axis=(1, 2)))


@pytest.mark.parametrize("classes", [2, 11, 16])
def test_intervals_are_to_the_bit_those_of_whole_confusion_matrices(classes):
    counts = np.random.default_rng(classes).integers(0, 7, (3, classes, classes))
    counts[1, 0] = counts[:-1, -1] = 0
    counts[:-1, 0, 0] += 1
    measured = []
    for confusion in draw_whole_counts(counts, 60, np.random.default_rng(0)):
        label, prediction = np.repeat(np.argwhere(confusion.sum(0) >= 0), confusion.sum(0).ravel(), axis=0).T
        scores = {"zero_division": 0, "average": "weighted"}
        known = confusion[:-1]
        measured.append(
            [
                np.mean(label == prediction),
                recall_score(label, prediction, zero_division=0, average="macro"),
                f1_score(label, prediction, **scores),
                *(known.trace(axis1=1, axis2=2) / known.sum(axis=(1, 2))),
            ]
        )
    low, high = np.quantile(measured, [0.025, 0.975], axis=0)
    found = summarize(counts, num_resamples=60)["intervals"]
    ends = np.concatenate([np.reshape(found[name], (-1, 2)) for name in NAMES])
    expected = np.where(high - low > 1e-12, [low, high], np.nan).T
    np.testing.assert_allclose(ends, expected, rtol=1e-12)


def test_two_thousand_classes_take_neither_minutes_nor_gigabytes():
    rng, classes = np.random.default_rng(0), 2000
    label, group = rng.integers(0, classes, classes), rng.integers(0, 2, classes)
    prediction = np.where(rng.random(classes) < 0.7, label, rng.integers(0, classes, classes))
    counts = np.zeros((3, classes, classes), np.int32)
    np.add.at(counts, (group, label, prediction), 1)
    tracemalloc.start()
    found = summarize(counts, num_resamples=300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e8  # a block of 256 whole tensors would take 12 GB
    assert found["accuracy"] == np.mean(prediction == label)
    assert found["intervals"]["accuracy"][0] < found["accuracy"] < found["intervals"]["accuracy"][1]


def test_the_interval_of_accuracy_is_the_stratified_ones():
    counts = 40 * COUNTS
    total = counts.sum(axis=2)
    recall = np.diagonal(counts, axis1=1, axis2=2) / np.maximum(total, 1)
    deviation = np.sqrt(np.sum(total * recall * (1 - recall))) / total.sum()
    middle = np.sum(total * recall) / total.sum()
    low, high = compute_percentile_intervals(counts, accuracy, num_resamples=20_000)["accuracy"]
    assert low == pytest.approx(middle - 1.96 * deviation, abs=0.1 * deviation)
    assert high == pytest.approx(middle + 1.96 * deviation, abs=0.1 * deviation)


def test_many_classes_are_drawn_block_by_block(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK", 7 * COUNTS.size + 1)
    monkeypatch.setattr(bootstrap, "_SMALLEST_BLOCK", 1)
    sizes = []

    def measure(margins):
        sizes.append(len(margins.hits))
        by_group = np.broadcast_to(margins.support.sum(axis=1), (len(margins.hits), 3))
        return accuracy(margins) | {"by_group": by_group / 1.0}

    found = compute_percentile_intervals(COUNTS, measure, num_resamples=50, seed=4)
    assert sizes == [7] * 7 + [1]
    np.testing.assert_array_equal(found["by_group"], np.repeat(COUNTS.sum(axis=(1, 2))[:, None], 2, axis=1))
    assert found == compute_percentile_intervals(COUNTS, measure, num_resamples=50, seed=4)
    assert found != compute_percentile_intervals(COUNTS, measure, num_resamples=50, seed=5)


def test_what_was_never_seen_is_nan_and_so_is_what_never_changes():
    counts = np.zeros((3, 2, 2), int)
    counts[0, 0, 0] = 1
    intervals = summarize(counts, num_resamples=20)["intervals"]
    # The only resample of one image is the image: it says nothing about the next one.
    assert np.isnan(np.concatenate([[intervals["accuracy"]], intervals["accuracy_by_group"]])).all()
    empty = summarize(np.zeros((3, 2, 2), int), num_resamples=20)["intervals"]
    assert np.isnan([empty[name] for name in ("accuracy", "macro_recall", "f1")]).all()
    assert summarize(counts[:1], num_resamples=20)["intervals"]["accuracy_by_group"] == []
    errorless = np.stack([np.diag([9, 9]), [[7, 2], [1, 8]], np.zeros((2, 2), int)])
    intervals = summarize(errorless, num_resamples=50)["intervals"]
    assert np.isnan(intervals["accuracy_by_group"][0]).all()
    assert np.isfinite(intervals["accuracy_by_group"][1] + intervals["accuracy"]).all()


def test_intervals_cover_and_that_of_the_worst_recall_would_not():
    """WIDER Attribute's rows, where a model confuses some classes with few others."""
    rng, trials, classes = np.random.default_rng(2), 150, 16
    sizes = np.concatenate([make_wider_counts(), np.full((1, classes), 3)])
    shares = rng.dirichlet(np.full(classes, 0.3), (3, classes))
    recall, diagonal = rng.uniform(0.5, 0.8, (3, classes)), np.arange(classes)
    shares[:, diagonal, diagonal] = 0.0
    shares *= ((1 - recall) / shares.sum(axis=2))[..., None]
    shares[:, diagonal, diagonal] = recall
    truth = summarize(np.round(1e6 * shares * sizes[..., None]).astype(np.int64), num_resamples=0)
    covered, worst = [], []
    for _ in range(trials):
        counts = rng.multinomial(sizes, shares)
        found = summarize(counts, num_resamples=200)["intervals"]
        ends = np.array([end for name in NAMES for end in np.reshape(found[name], (-1, 2))])
        values = np.concatenate([np.ravel(truth[name]) for name in NAMES])
        covered.append((ends[:, 0] <= values) & (values <= ends[:, 1]))
        drawn = resample_margins(counts[:2], 200, rng).hits / sizes[:2]
        worst.append(np.quantile(drawn.min(axis=(1, 2)), 0.975) >= truth["worst_group_recall"])
    assert np.mean(covered, axis=0).min() > 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5
    assert np.mean(worst) < 0.5
