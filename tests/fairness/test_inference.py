"""Intervals and tests against published examples, exact distributions and simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairkd_jax.fairness.gaps import HALF_NORMAL, pairwise_gaps
from fairkd_jax.fairness.inference import (
    any_bias_test,
    corrected_interval,
    gap_p_values,
    holm,
    mean_abs_gap,
    newcombe,
    paired_comparison,
    paired_outcomes,
)

# WIDER Attribute's images by class and gender, in the proportions of 5,188 real annotations.
MALE = (801, 266, 237, 102, 216, 81, 16, 233, 230, 42, 248, 36, 153, 210, 192, 199)
FEMALE = (193, 181, 183, 82, 345, 33, 63, 72, 60, 214, 49, 52, 45, 82, 138, 134)
COUNTS = np.round(np.array([MALE, FEMALE]) * 3465 / 5037).astype(int)
CLASSES = COUNTS.shape[1]


def simulated(rng, scale):
    """Recognised images of a model whose true gaps are N(0, scale^2); and the mean |true gap|."""
    gap, middle = rng.normal(0.0, scale, CLASSES), rng.uniform(0.45, 0.85, CLASSES)
    recall = np.clip(np.stack([middle + gap / 2, middle - gap / 2]), 0.01, 0.99)
    return rng.binomial(COUNTS, recall), np.mean(np.abs(recall[0] - recall[1]))


@pytest.mark.parametrize("truth", [0.0, 0.02, 0.05, 0.08, 0.12])
def test_the_corrected_interval_covers_the_truth(truth):
    rng, covered, trials = np.random.default_rng(round(1000 * truth)), 0, 600
    for number in range(trials):
        correct, real = simulated(rng, truth / HALF_NORMAL)
        gaps = pairwise_gaps(correct, COUNTS, 2)
        low, high = corrected_interval(gaps.difference[0], gaps.variance[0], draws=1000, seed=number)
        covered += low <= real <= high
    # 93 % in the long run, less two and a half deviations of so many trials.
    assert covered / trials > 0.93 - 2.5 * (0.93 * 0.07 / trials) ** 0.5


def test_the_test_of_any_bias_keeps_its_level_and_finds_bias():
    rng, trials = np.random.default_rng(5), 600
    p_values = np.array(
        [any_bias_test(simulated(rng, 0.0)[0], COUNTS, draws=400, seed=n) for n in range(trials)]
    )
    assert 0.03 <= np.mean(p_values <= 0.05) <= 0.07
    biased = [any_bias_test(simulated(rng, 0.15)[0], COUNTS, draws=400, seed=n) for n in range(50)]
    assert np.mean(np.array(biased) <= 0.05) > 0.9


def test_the_test_of_any_bias_is_fishers_urn():
    correct, total = np.array([[9], [4]]), np.array([[12], [11]])
    hits = np.arange(0, 13)
    probability = stats.hypergeom(23, 13, 12).pmf(hits)
    deviation = np.abs(hits / 12 - (13 - hits) / 11)
    exact = probability[deviation >= abs(9 / 12 - 4 / 11) - 1e-12].sum()
    assert any_bias_test(correct, total, draws=200_000) == pytest.approx(exact, abs=0.005)


def test_three_groups_and_empty_cells():
    total = np.array([[40, 50, 0], [60, 30, 20], [50, 0, 30]])
    equal = np.array([[20, 25, 0], [30, 15, 10], [25, 0, 15]])
    assert any_bias_test(equal, total, draws=500) > 0.9
    unequal = np.array([[35, 25, 0], [10, 15, 10], [25, 0, 15]])
    assert any_bias_test(unequal, total, draws=500) < 0.01
    assert np.isnan(any_bias_test([[3], [0]], [[5], [0]]))
    expected = np.mean([0.5 * 0, abs(20 / 40 - 35 / 60), abs(35 / 60 - 1.0), abs(20 / 40 - 1.0)][1:])
    single = mean_abs_gap(np.array([[20.0], [35.0], [50.0]]), total[:, :1])
    assert single == pytest.approx(expected)


def test_newcombes_interval_is_his_example():
    """Newcombe 1998, table II, 56 of 70 against 48 of 80 by method 10."""
    low, high = newcombe([[56], [48]], [[70], [80]])
    np.testing.assert_allclose([low[0], high[0]], [0.0524, 0.3339], atol=5e-5)
    low, high = newcombe([[0, 10], [0, 0]], [[10, 10], [10, 0]])
    assert low[0] < 0 < high[0]
    assert np.isnan(low[1])


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, np.nan, 0.03, 0.5]), [0.04, 0.09, np.nan, 0.09, 0.5])
    assert np.isnan(holm([np.nan])).all()


def test_gap_p_values_are_the_chi_squared_tests():
    correct, total = np.array([[30, 10], [15, 10]]), np.array([[50, 10], [45, 10]])
    table = [[30, 20], [15, 30]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    np.testing.assert_allclose(gap_p_values(correct, total), [expected, 1.0], rtol=1e-10)


@given(st.data())
def test_outcomes_add_up(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    group, label = rng.integers(-1, 2, 50), rng.integers(0, 3, 50)
    a, b = rng.integers(0, 2, (2, 50)).astype(bool)
    outcomes = paired_outcomes(group, label, a, b, groups=2, classes=3)
    assert outcomes.sum() == (group >= 0).sum()
    for g in range(2):
        for c in range(3):
            cell = (group == g) & (label == c)
            assert outcomes[:2, g, c].sum() == (a & cell).sum()
            assert outcomes[[0, 2], g, c].sum() == (b & cell).sum()


def test_the_paired_comparison_keeps_its_level():
    """Two models of the same quality and bias, whose answers are correlated."""
    rng, trials, rejected, covered = np.random.default_rng(11), 300, 0, 0
    for number in range(trials):
        recall = np.broadcast_to(rng.uniform(0.5, 0.8, CLASSES), COUNTS.shape)
        shares = np.stack([recall - 0.1, np.full_like(recall, 0.1), np.full_like(recall, 0.1), 0.9 - recall])
        outcomes = np.moveaxis(rng.multinomial(COUNTS, np.moveaxis(shares, 0, -1)), -1, 0)
        result = paired_comparison(outcomes, draws=400, seed=number)
        rejected += result["p"] <= 0.05
        covered += result["low"] <= 0 <= result["high"]
    assert 0.03 - 0.02 <= rejected / trials <= 0.07 + 0.02
    assert covered / trials > 0.9


def test_the_paired_comparison_finds_a_difference_and_its_sign():
    total = np.full((2, 4), 200)
    worse = np.array([[160] * 4, [80] * 4])
    both = np.minimum(worse, 120)
    outcomes = np.stack([both, worse - both, 120 - both, total - worse - 120 + both])
    result = paired_comparison(outcomes, draws=2000)
    assert result["difference"] == pytest.approx(0.4)
    assert result["p"] < 0.001
    assert 0.2 < result["low"] < 0.4 < result["high"] < 0.6
    assert paired_comparison(outcomes[[0, 2, 1, 3]], draws=2000)["difference"] == pytest.approx(-0.4)
    empty = paired_comparison(np.zeros((4, 2, 3), int), draws=10)
    assert np.isnan(list(empty.values())).all()


def test_nothing_to_compare_is_nan():
    assert np.isnan(corrected_interval(np.array([]), np.array([]))).all()
    # Smaller than chance allows even without any bias.
    low, high = corrected_interval(np.zeros(16), np.full(16, 0.01))
    assert (low, high) == (0.0, 0.0)
