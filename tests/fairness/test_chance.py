"""Simulated models of known bias: what the floor, the corrected mean and D2 make of sampling noise."""

import numpy as np
import pytest

from fairkd_jax.fairness import summarize

MEASURES = ("mean_abs_disparity", "floor", "corrected_mean_abs_disparity", "d2")


def test_an_unbiased_model_sits_at_the_floor():
    """16 classes, 3,465 images, recall 0.65 in both groups, as in the note on the floor."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 200, (2, 16))
    sizes = (sizes * 3465 / sizes.sum()).astype(int)
    summaries = []
    for _ in range(500):
        counts = np.zeros((3, 16, 16), int)
        hits = rng.binomial(sizes, 0.65)
        counts[:2, np.arange(16), np.arange(16)] = hits
        counts[:2, np.arange(16), (np.arange(16) + 1) % 16] = sizes - hits
        summaries.append(summarize(counts, num_resamples=0))
    mean = {name: np.mean([s[name] for s in summaries]) for name in MEASURES}
    assert mean["mean_abs_disparity"] == pytest.approx(mean["floor"], rel=0.04)
    assert mean["mean_abs_disparity"] > 0.05
    assert mean["corrected_mean_abs_disparity"] < 0.4 * mean["mean_abs_disparity"]
    assert np.median([s["corrected_mean_abs_disparity"] for s in summaries]) < 0.01
    assert abs(mean["d2"]) < 3e-4


def test_a_biased_model_is_estimated_without_the_noise():
    rng = np.random.default_rng(1)
    true_gaps = rng.normal(0.0, 0.15, 40)
    sizes, recall = np.full((2, 40), 60), np.stack([0.5 + true_gaps / 2, 0.5 - true_gaps / 2])
    found = []
    for _ in range(100):
        counts = np.zeros((3, 40, 40), int)
        hits = rng.binomial(sizes, recall)
        counts[:2, np.arange(40), np.arange(40)] = hits
        counts[:2, np.arange(40), (np.arange(40) + 1) % 40] = sizes - hits
        summary = summarize(counts, num_resamples=0)
        found.append((summary["mean_abs_disparity"], summary["corrected_mean_abs_disparity"], summary["d2"]))
    naive, corrected, d2 = np.mean(found, axis=0)
    truth = np.mean(np.abs(true_gaps))
    assert naive > 1.1 * truth
    assert corrected == pytest.approx(truth, rel=0.06)
    assert d2 == pytest.approx(np.mean(true_gaps**2), rel=0.06)
