"""Draws of the count tensor, and what their intervals cover."""

import numpy as np
import pytest

from fairkd_jax.fairness import bootstrap, summarize
from fairkd_jax.fairness.bootstrap import compute_percentile_intervals, resample_counts
from fairkd_jax.fairness.simulation import make_wider_counts

COUNTS = np.random.default_rng(0).integers(0, 9, (3, 4, 4))
COUNTS[0, 1], COUNTS[2, 3], COUNTS[1, 2, :2] = 0, 0, 0


def accuracy(counts):
    return {"accuracy": np.trace(counts.sum(axis=1), axis1=1, axis2=2) / counts.sum(axis=(1, 2, 3))}


def test_resamples_keep_the_size_of_every_row_and_scatter_as_a_multinomial():
    drawn = resample_counts(COUNTS, 20_000, np.random.default_rng(1))
    assert drawn.shape == (20_000, 3, 4, 4)
    assert drawn.dtype == np.int32
    sizes = COUNTS.sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(drawn.sum(axis=3), np.broadcast_to(sizes[..., 0], (20_000, 3, 4)))
    assert not drawn[:, COUNTS == 0].any()
    share = COUNTS / np.maximum(sizes, 1)
    np.testing.assert_allclose(drawn.mean(axis=0), COUNTS, atol=0.06)
    np.testing.assert_allclose(drawn.var(axis=0), sizes * share * (1 - share), rtol=0.05, atol=0.02)
    found = np.cov(drawn[:, 0, 0, 0], drawn[:, 0, 0, 1])[0, 1]
    assert found == pytest.approx(-sizes[0, 0, 0] * share[0, 0, 0] * share[0, 0, 1], abs=0.1)


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
    sizes = []

    def measure(counts):
        sizes.append(len(counts))
        return accuracy(counts) | {"by_group": counts.sum(axis=3).sum(axis=2) / 1.0}

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
    names, covered, worst = ("accuracy", "macro_recall", "f1", "accuracy_by_group"), [], []
    for _ in range(trials):
        counts = rng.multinomial(sizes, shares)
        found = summarize(counts, num_resamples=200)["intervals"]
        ends = np.array([end for name in names for end in np.reshape(found[name], (-1, 2))])
        values = np.concatenate([np.ravel(truth[name]) for name in names])
        covered.append((ends[:, 0] <= values) & (values <= ends[:, 1]))
        known = resample_counts(counts[:2], 200, rng)
        drawn = np.diagonal(known, axis1=2, axis2=3) / sizes[:2]
        worst.append(np.quantile(drawn.min(axis=(1, 2)), 0.975) >= truth["worst_group_recall"])
    assert np.mean(covered, axis=0).min() > 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5
    assert np.mean(worst) < 0.5
