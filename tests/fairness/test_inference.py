"""Intervals and tests against published examples, exact distributions and simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairkd_jax.fairness.gaps import (
    compute_corrected_mean_abs_gap,
    compute_gaps,
    compute_mean_abs_gap,
    compute_shrunken_variance,
)
from fairkd_jax.fairness.inference import (
    apply_holm_correction,
    compute_corrected_interval,
    compute_gap_p_values,
    compute_newcombe_interval,
)
from fairkd_jax.fairness.paired_comparison import compare_paired_outcomes, count_paired_outcomes
from fairkd_jax.fairness.permutation import compute_any_bias_p
from fairkd_jax.fairness.simulation import make_wider_counts

COUNTS = make_wider_counts()
CLASSES = COUNTS.shape[1]


def coverage(sizes, middle, scale, trials):
    """How often the corrected interval holds the mean |true gap| of all pairs of groups."""
    rng, covered = np.random.default_rng(3), 0
    for number in range(trials):
        recall = np.clip(middle + rng.normal(0.0, scale * 0.5**0.5, sizes.shape), 0.0, 1.0)
        low, high = compute_corrected_interval(
            rng.binomial(sizes, recall), sizes, num_resamples=500, seed=number
        )
        covered += low <= compute_mean_abs_gap(recall * sizes, sizes) <= high
    return covered / trials


def test_the_corrected_interval_knows_that_pairs_share_groups():
    """Ten pairs of five groups tell less than ten gaps: as if they did, it would cover 80 %."""
    sizes = np.random.default_rng(0).integers(40, 150, (5, 8))
    assert coverage(sizes, 0.65, 0.03, trials=250) > 0.91


def test_the_corrected_interval_allows_for_small_cells():
    """Of 2 to 107 images: with the variance of each cell on its own it would cover 88 %."""
    assert coverage(COUNTS // 5, 0.65, 0.025, trials=250) > 0.91


def test_the_corrected_interval_holds_the_corrected_mean():
    rng = np.random.default_rng(2)
    for number in range(20):
        sizes = rng.integers(2, 40, (2, rng.integers(1, 30)))
        correct = rng.binomial(sizes, rng.uniform(0.0, 1.0, sizes.shape))
        gaps = compute_gaps(correct, sizes, 2)
        low, high = compute_corrected_interval(correct, sizes, num_resamples=2000, seed=number)
        assert 0 <= low <= compute_corrected_mean_abs_gap(gaps.difference[0], gaps.variance[0]) <= high


def test_a_steady_variance_is_between_the_cells_and_the_classs():
    correct, total = np.array([[0, 40, 3], [9, 400, 0]]), np.array([[2, 100, 5], [20, 1000, 0]])
    enough = np.array([[True, True, True], [True, True, False]])
    steady = compute_shrunken_variance(correct, total, enough)
    pooled = 9 / 22
    assert steady[0, 0] == pytest.approx(20 / 22 * pooled * (1 - pooled) * 22 / 21 / 2)
    # As good as the plain one where there are many images; the class's own where it has one group alone.
    np.testing.assert_allclose(steady[:, 1], [0.24 / 99, 0.24 / 999], rtol=2e-3)
    assert steady[0, 2] == pytest.approx(0.24 / 4)
    assert steady[1, 2] == 0


def test_the_test_of_any_bias_is_fishers_urn():
    correct, total = np.array([[9], [4]]), np.array([[12], [11]])
    hits = np.arange(0, 13)
    probability = stats.hypergeom(23, 13, 12).pmf(hits)
    deviation = np.abs(hits / 12 - (13 - hits) / 11)
    exact = probability[deviation >= abs(9 / 12 - 4 / 11) - 1e-12].sum()
    assert compute_any_bias_p(correct, total, num_resamples=200_000) == pytest.approx(exact, abs=0.005)


def test_three_groups_and_empty_cells():
    total = np.array([[40, 50, 0], [60, 30, 20], [50, 0, 30]])
    equal = np.array([[20, 25, 0], [30, 15, 10], [25, 0, 15]])
    assert compute_any_bias_p(equal, total, num_resamples=500) > 0.9
    unequal = np.array([[35, 25, 0], [10, 15, 10], [25, 0, 15]])
    assert compute_any_bias_p(unequal, total, num_resamples=500) < 0.01
    assert np.isnan(compute_any_bias_p([[3], [0]], [[5], [0]]))
    expected = np.mean([0.5 * 0, abs(20 / 40 - 35 / 60), abs(35 / 60 - 1.0), abs(20 / 40 - 1.0)][1:])
    single = compute_mean_abs_gap(np.array([[20.0], [35.0], [50.0]]), total[:, :1])
    assert single == pytest.approx(expected)


def test_newcombes_interval_is_his_example():
    """Newcombe 1998, table II, 56 of 70 against 48 of 80 by method 10."""
    low, high = compute_newcombe_interval([[56], [48]], [[70], [80]])
    np.testing.assert_allclose([low[0], high[0]], [0.0524, 0.3339], atol=5e-5)
    low, high = compute_newcombe_interval([[0, 10], [0, 0]], [[10, 10], [10, 0]])
    assert low[0] < 0 < high[0]
    assert np.isnan(low[1])


def test_holm_by_hand():
    np.testing.assert_allclose(
        apply_holm_correction([0.01, 0.04, np.nan, 0.03, 0.5]), [0.04, 0.09, np.nan, 0.09, 0.5]
    )
    assert np.isnan(apply_holm_correction([np.nan])).all()


def test_gap_p_values_are_the_chi_squared_tests():
    correct, total = np.array([[30, 10], [15, 10]]), np.array([[50, 10], [45, 10]])
    table = [[30, 20], [15, 30]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    # Where all images of a class are recognised there is nothing to test.
    np.testing.assert_allclose(compute_gap_p_values(correct, total), [expected, np.nan], rtol=1e-10)
    assert np.isnan(compute_gap_p_values([[0], [0]], [[9], [4]])).all()


@given(st.data())
def test_outcomes_add_up(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    group, label = rng.integers(-1, 2, 50), rng.integers(0, 3, 50)
    a, b = rng.integers(0, 2, (2, 50)).astype(bool)
    outcomes = count_paired_outcomes(group, label, a, b, groups=2, classes=3)
    assert outcomes.sum() == (group >= 0).sum()
    for g in range(2):
        for c in range(3):
            cell = (group == g) & (label == c)
            assert outcomes[:2, g, c].sum() == (a & cell).sum()
            assert outcomes[[0, 2], g, c].sum() == (b & cell).sum()


def test_the_paired_comparison_finds_a_difference_and_its_sign():
    total = np.full((2, 4), 200)
    worse = np.array([[160] * 4, [80] * 4])
    both = np.minimum(worse, 120)
    outcomes = np.stack([both, worse - both, 120 - both, total - worse - 120 + both])
    result = compare_paired_outcomes(outcomes, num_resamples=2000)
    assert result["difference"] == pytest.approx(0.4)
    assert result["p"] < 0.001
    assert 0.2 < result["low"] < 0.4 < result["high"] < 0.6
    assert compare_paired_outcomes(outcomes[[0, 2, 1, 3]], num_resamples=2000)["difference"] == pytest.approx(
        -0.4
    )
    empty = compare_paired_outcomes(np.zeros((4, 2, 3), int), num_resamples=10)
    assert np.isnan(list(empty.values())).all()


def test_nothing_to_compare_is_nan():
    assert np.isnan(compute_corrected_interval([[5, 0], [0, 0]], [[9, 0], [0, 4]])).all()
    # Smaller than chance allows even without any bias: that no gap is there is still not certain.
    low, high = compute_corrected_interval(np.full((2, 16), 30), np.full((2, 16), 50))
    assert low == 0.0
    assert 0.02 < high < 0.08


@pytest.mark.parametrize(
    ("correct", "total"),
    [
        ([[8, 8], [8, 8]], [[8, 8], [8, 8]]),  # no error
        ([[8, 0], [8, 0]], [[8, 8], [8, 8]]),  # one answer for all
        ([[8, 8], [7, 8]], [[8, 8], [8, 8]]),  # one error, which is as far from even in either group
        ([[1, 8], [0, 8]], [[8, 8], [8, 8]]),
        ([[8, 5], [8, 3]], [[8, 9], [8, 1]]),  # the second class has too few images in a group
        ([[4, 4], [4, 4], [4, 3]], [[4, 4], [4, 4], [4, 4]]),
    ],
)
def test_no_permutation_of_the_groups_says_anything(correct, total):
    assert np.isnan(compute_any_bias_p(correct, total, num_resamples=50))


@pytest.mark.parametrize(
    ("correct", "total"),
    [([[8], [4]], [[8], [5]]), ([[8, 8], [6, 8]], [[8, 8], [8, 8]]), ([[2], [0]], [[2], [2]])],
)
def test_permutations_that_differ_have_a_p_value(correct, total):
    found = compute_any_bias_p(correct, total, num_resamples=400)
    assert 0.0 < found <= 1.0
