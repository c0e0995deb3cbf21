"""Equalized odds, demographic parity and bias amplification by hand and against fairlearn."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from fairkd_jax.fairness.distributions import (
    compute_bias_amplification,
    compute_demographic_parity,
    compute_equalized_odds,
    compute_fidelity,
)


def frame_of(label, prediction, group, wanted, by_label):
    """The share of predictions that are `wanted`, for each group (and label), by fairlearn."""
    return MetricFrame(
        metrics=lambda _, predicted: np.mean(predicted == wanted),
        y_true=label,
        y_pred=prediction,
        sensitive_features=group,
        control_features=label if by_label else None,
    ).by_group


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 3), st.integers(2, 4))
def test_point_values_are_fairlearns(seed, groups, classes):
    rng = np.random.default_rng(seed)
    known = rng.integers(2, 9, (groups, classes, classes))
    group, label, prediction = (np.repeat(i.ravel(), known.ravel()) for i in np.indices(known.shape))
    shares = np.stack([frame_of(label, prediction, group, k, True).to_numpy() for k in range(classes)], -1)
    shares = shares.reshape(classes, groups, classes).astype(float)
    pairs = [(a, b) for a in range(groups) for b in range(a)]
    distance = np.max([0.5 * np.abs(shares[:, a] - shares[:, b]).sum(-1) for a, b in pairs], axis=0)
    found = compute_equalized_odds(known, 2)
    np.testing.assert_allclose(found["per_class"], distance, atol=1e-12)
    assert found["mean"] == pytest.approx(distance.mean(), abs=1e-12)
    assert found["worst"] == pytest.approx(distance.max(), abs=1e-12)
    overall = np.stack([frame_of(label, prediction, group, k, False).to_numpy() for k in range(classes)], -1)
    overall = overall.astype(float)
    parity = compute_demographic_parity(known, 2)
    np.testing.assert_allclose(parity["per_class"], overall.max(0) - overall.min(0), atol=1e-12)
    variation = max(0.5 * np.abs(overall[a] - overall[b]).sum() for a, b in pairs)
    assert parity["total_variation"] == pytest.approx(variation, abs=1e-12)


def test_a_perfect_model_has_equal_odds_without_parity():
    known = np.zeros((2, 2, 2), int)
    known[0], known[1] = np.diag([90, 10]), np.diag([10, 90])
    assert compute_equalized_odds(known, 2)["worst"] == 0
    assert compute_demographic_parity(known, 2)["total_variation"] == pytest.approx(0.8)
    assert compute_bias_amplification(known, known.sum(2)) == 0


def test_amplification_has_the_sign_of_the_training_skew():
    training = [[90, 10], [10, 90]]
    known = np.zeros((2, 2, 2), int)
    # Labels are even in both groups; predictions lean as the training did, by 0.2.
    known[0], known[1] = [[50, 0], [20, 30]], [[30, 20], [0, 50]]
    assert compute_bias_amplification(known, training) == pytest.approx(0.2)
    assert compute_bias_amplification(known, training[::-1]) == pytest.approx(-0.2)


def test_fidelity_by_hand():
    found = compute_fidelity([0, 1, 2, 2, 1], [0, 1, 1, 2, 0], [0, 0, 0, 1, -1], 3)
    assert found["agreement"] == pytest.approx(3 / 5)
    np.testing.assert_allclose(found["agreement_by_group"], [2 / 3, 1.0, np.nan])


def test_what_is_not_there_is_nan():
    known = np.zeros((2, 3, 3), int)
    known[0, 0, 0] = known[1, 1, 1] = 5
    found = compute_equalized_odds(known, 2)
    assert np.isnan(found["per_class"]).all()
    assert np.isnan(found["mean"])
    assert np.isnan(compute_demographic_parity(known[:1], 2)["total_variation"])
    assert np.isnan(compute_demographic_parity(np.zeros((2, 3, 3), int), 2)["worst"])
    assert np.isnan(compute_bias_amplification(np.zeros((2, 3, 3), int), np.ones((2, 3))))
