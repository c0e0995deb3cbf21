"""Bounds of the mean |true gap| against closed forms, another optimiser and simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from fairkd_jax.fairness import gap_bounds
from fairkd_jax.fairness.gap_bounds import compute_gap_bounds
from fairkd_jax.fairness.gaps import compute_corrected_mean_abs_gap, compute_gaps
from fairkd_jax.fairness.inference import compute_corrected_interval, find_comparable_cells
from fairkd_jax.fairness.small_cells import Scenario, list_scenarios, simulate_scenario

ONE_SIDED, TWO_SIDED = 1.6448536, 1.9599640  # normal quantiles for 95 %


def bounds(correct, total):
    correct, total = np.array(correct), np.array(total)
    return compute_gap_bounds(correct, total, find_comparable_cells(total, 2))


def test_the_lower_bounds_function_of_a_gap_never_expects_more_than_the_gap():
    """By numerical integration, for gaps of 0 to 6 standard errors; the spread is its largest deviation."""
    noise = np.linspace(-9, 9, 4001)
    weight = np.exp(-0.5 * noise**2) / np.exp(-0.5 * noise**2).sum()
    means, deviations = [], []
    sizes = np.linspace(0.0, 6.0, 61)
    for size in sizes:
        gap = size + noise
        height, width = gap_bounds._BUMP_HEIGHT, gap_bounds._BUMP_WIDTH
        value = np.abs(gap) - height * np.exp(-0.5 * (gap / width) ** 2)
        means.append(weight @ value)
        deviations.append(np.sqrt(weight @ value**2 - means[-1] ** 2))
    assert means[0] == pytest.approx(0.0, abs=1e-5)
    assert np.all(np.array(means) <= sizes + 1e-5)
    assert 0.99 < max(deviations) / gap_bounds._BUMP_SPREAD <= 1.0


def test_the_lower_bound_by_hand():
    """Two classes of many images: one has a gap of 0.4, the other of 0.02."""
    correct, total = np.array([[1400, 1000], [600, 960]]), np.full((2, 2), 2000)
    low, _ = bounds(correct, total)
    share, pooled = correct / total, correct.sum(axis=0) / 4000
    image = [
        [(2000 * p * (1 - p) * 2000 / 1999 + 20 * q * (1 - q) * 4000 / 3999) / 2020 for p, q in row]
        for row in (zip(share[0], pooled, strict=True), zip(share[1], pooled, strict=True))
    ]
    error = np.sqrt(np.sum(image, axis=0) / 2000)
    gap = np.abs(share[0] - share[1])
    height = np.sqrt(2 / np.pi) * np.sqrt(1 + 1 / 0.49)
    estimate = np.mean(gap - error * height * np.exp(-((gap / error) ** 2) / 0.98))
    assert low == pytest.approx(estimate - TWO_SIDED * 1.32 * np.sqrt(np.sum(error**2)) / 2, rel=1e-6)
    assert low > 0.17


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_without_errors_the_upper_bound_is_wilsons(classes):
    share = ONE_SIDED**2 / classes
    expected = share / (7 + share)
    for right in (8, 0):
        low, high = bounds(np.full((2, classes), right), np.full((2, classes), 8))
        assert low == 0.0
        assert high == pytest.approx(expected, rel=1e-5)


def test_a_small_cell_is_not_made_sure_by_a_large_one():
    expected = ONE_SIDED**2 / (4 + ONE_SIDED**2)
    for cells in ([[5], [500]], [[500], [5]]):
        assert bounds(cells, cells)[1] == pytest.approx(expected, rel=1e-4)
    for cells in ([[5], [500]], [[500], [5]]):
        assert bounds([[0], [0]], cells)[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("groups", [2, 3])
def test_the_bound_by_recalls_is_another_optimisers(groups):
    rng = np.random.default_rng(groups)
    total = rng.integers(20, 60, (groups, 3))
    correct = rng.binomial(total, np.linspace(0.5, 0.9, groups)[:, None])
    recall, size = correct / total, total - 1.0
    pairs = [(a, b) for a in range(groups) for b in range(a)]
    sign = [np.sign(recall[a] - recall[b]) for a, b in pairs]

    def mean_gap(p):
        p = p.reshape(recall.shape)
        return np.mean([s * (p[a] - p[b]) for s, (a, b) in zip(sign, pairs, strict=True)])

    def room(p):
        p = p.reshape(recall.shape)
        return ONE_SIDED**2 - np.sum(size * (p - recall) ** 2 / (p * (1 - p)))

    best = optimize.minimize(
        lambda p: -mean_gap(p),
        recall.ravel(),
        method="SLSQP",
        bounds=[(1e-6, 1 - 1e-6)] * recall.size,
        constraints={"type": "ineq", "fun": room},
        options={"ftol": 1e-10, "maxiter": 200},
    )
    cells = gap_bounds._describe_cells(correct, total, np.ones(total.shape, bool))
    assert gap_bounds._bound_by_recalls(cells, ONE_SIDED) == pytest.approx(-best.fun, rel=1e-4)


def test_the_bound_by_squares_is_the_root_of_a_quadratic():
    """Equal cells of many images, whose gaps are about those of chance: no other bound is as low."""
    size, classes = 2000, 16
    sign = np.where(np.arange(classes) % 2, 1, -1)
    total, correct = np.full((2, classes), size), 1000 + np.stack([18 * sign, -18 * sign])
    variance = 2 * (0.509 * 0.491) / (size - 1)
    squared = 0.018**2 - variance
    k = ONE_SIDED**2 / classes
    # (m - squared)^2 = k (2 V^2 + 4 m V), up to the variance's shrinking.
    b, c = squared + 2 * k * variance, squared**2 - 2 * k * variance**2
    expected = np.sqrt(b + np.sqrt(b**2 - c))
    assert bounds(correct, total)[1] == pytest.approx(expected, rel=0.01)
    cells = gap_bounds._describe_cells(correct, total, np.ones(total.shape, bool))
    assert gap_bounds._bound_by_recalls(cells, ONE_SIDED) > expected


def test_the_bound_by_squares_knows_that_pairs_share_groups():
    """Three groups; the variance of a class's squared gaps without bias is simulated."""
    size, classes, noise = 2000, 12, np.random.default_rng(0).standard_normal((200_000, 3))
    simulated = np.var(sum((noise[:, a] - noise[:, b]) ** 2 for a, b in ((0, 1), (0, 2), (1, 2))))
    order = np.stack([np.roll([-20, 0, 20], c) for c in range(classes)], axis=1)
    correct, total = 1000 + order, np.full((3, classes), size)
    variance = 0.25 / (size - 1)
    squared = (2 * 0.01**2 + 0.02**2) / 3 - 2 * variance
    cells = gap_bounds._describe_cells(correct, total, np.ones(total.shape, bool))
    found = gap_bounds._bound_by_squares(cells, ONE_SIDED)
    # With true gaps the squares of each pair vary more, by 4 m times the sum of three variances.
    deviation = np.sqrt(classes * (simulated * variance**2 + 4 * found**2 * 9 * variance))
    assert 3 * classes * (found**2 - squared) == pytest.approx(ONE_SIDED * deviation, rel=0.02)


ERRORLESS, COLLAPSED = np.full((2, 3), 8), np.array([[8, 0, 0], [8, 0, 0]])


@pytest.mark.parametrize("correct", [ERRORLESS, COLLAPSED, 0 * ERRORLESS, np.full((2, 3), 4)])
def test_no_interval_is_0_to_0(correct):
    """Not without errors, not for one answer to all, and not where all recalls are equal."""
    low, high = compute_corrected_interval(correct, np.full((2, 3), 8), num_resamples=200)
    assert low == 0.0
    assert 0.1 < high < 0.4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 20))
def test_the_interval_holds_the_estimate_and_lies_within_0_and_1(seed, groups, classes):
    rng = np.random.default_rng(seed)
    total = rng.integers(0, 12, (groups, classes))
    correct = rng.binomial(total, rng.choice([0.0, 0.3, 0.9, 1.0], total.shape))
    low, high = compute_corrected_interval(correct, total, num_resamples=100)
    gaps = compute_gaps(correct, total, 2)
    usable = np.isfinite(gaps.difference)
    if not usable.any():
        assert np.isnan([low, high]).all()
        return
    found = compute_corrected_mean_abs_gap(gaps.difference[usable], gaps.variance[usable])
    assert 0.0 <= low <= found + 0.02  # the draws of the quantiles
    assert found <= high <= 1.0
    assert low < high


def recalls(first, second, classes):
    return np.repeat([[first], [second]], classes, axis=1)


QUARTER = 0.65 + 0.2 * np.array([[1, -1, 0, 0, 0, 0, 0, 0], [-1, 1, 0, 0, 0, 0, 0, 0]])
UNEQUAL = np.array([[5, 30, 8, 12], [20, 5, 40, 6]])


@pytest.mark.parametrize(
    ("recall", "sizes", "trials"),
    [
        (recalls(0.98, 0.93, 2), np.full((2, 2), 8), 120),  # the normal model alone: 0.75
        (recalls(1.0, 0.9, 16), np.full((2, 16), 5), 80),  # 0.65
        (recalls(1.0, 0.6, 1), np.full((2, 1), 5), 100),
        (recalls(0.98, 0.93, 4), UNEQUAL, 100),
        (QUARTER, np.full((2, 8), 30), 80),  # 0.9
    ],
)
def test_the_interval_holds_the_truth_in_small_cells(recall, sizes, trials):
    found = simulate_scenario(Scenario("", recall, sizes), trials, 100, seed=1)
    assert found["covers"] > 0.92 - 2.0 * (0.92 * 0.08 / trials) ** 0.5
    assert found["covers"] == pytest.approx(1.0 - found["above"] - found["below"])
    if recall[0, 0] == 0.98 and sizes[0, 0] == 8:
        assert found["normal_covers"] < 0.85
        assert found["width"] < 1.3 * found["normal_width"]


def test_the_scenarios_are_those_that_are_promised():
    found = {(s.name, s.sizes.shape[1], int(s.sizes.min())): s for s in list_scenarios()}
    assert len(found) == len(list_scenarios())
    for classes in (2, 3, 4):
        scenario = found["recalls 0.98 and 0.93", classes, 8]
        np.testing.assert_array_equal(scenario.recall, recalls(0.98, 0.93, classes))
    gap = np.subtract(*found["recall 0.65, gaps of 0.4 and -0.4", 8, 5].recall)
    np.testing.assert_allclose(gap, [0.4, -0.4, 0, 0, 0, 0, 0, 0], atol=1e-12)
    assert all(s.sizes.min() >= 5 and s.recall.shape == s.sizes.shape for s in found.values())
