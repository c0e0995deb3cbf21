"""Two methods over seeds and over images, against enumeration, simulated truth and the case of one seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairkd_jax.fairness.comparison import (
    HIGHER,
    LOWER,
    NOTHING,
    ONE_SEED,
    TOO_FEW,
    are_seeds_too_few,
    choose_verdict,
    compare_over_images,
    compare_over_seeds,
    compute_detectable_difference,
)
from fairkd_jax.fairness.gaps import compute_mean_abs_gap
from fairkd_jax.fairness.paired_comparison import compare_paired_outcomes, count_paired_outcomes

MAD = "mean_abs_disparity"


def answers(rng, size, seeds, *, classes=4, unknown=0.05):
    """Images that are hard or easy for all, and two methods that are equally good at them."""
    group = np.where(rng.random(size) < unknown, -1, rng.integers(0, 2, size))
    label, ease = rng.integers(0, classes, size), rng.beta(2.0, 1.0, size)
    a, b = rng.random((2, seeds, size)) < ease
    return group, label, a, b


def mean_gap(group, label, correct, classes):
    """The mean |gap| of one model, image by image."""
    gaps = []
    for c in range(classes):
        recalls = [correct[(group == g) & (label == c)].mean() for g in (0, 1)]
        gaps.append(abs(recalls[0] - recalls[1]))
    return np.mean(gaps)


def gap_between(group, label, a, b, classes):
    """Of two methods, the mean over seeds."""
    return np.mean(
        [
            mean_gap(group, label, x, classes) - mean_gap(group, label, y, classes)
            for x, y in zip(a, b, strict=True)
        ]
    )


def test_over_seeds_is_the_paired_t_test():
    a, b = np.random.default_rng(0).normal(0.1, 0.02, (2, 6))
    found, expected = compare_over_seeds(a - b), stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    np.testing.assert_allclose(found[:2], [np.mean(a - b), stats.tstd(a - b)])
    np.testing.assert_allclose(found[2:5], [interval.low, interval.high, expected.pvalue])
    wider = compare_over_seeds(a - b, level=0.99)
    assert wider.low < found.low < found.high < wider.high


def test_what_seeds_do_not_tell_is_nan():
    one = compare_over_seeds([0.02])
    assert one.mean == 0.02
    assert np.isnan(one[1:]).all()
    alike = compare_over_seeds([0.1 + 0.2, 0.3, 0.3])
    assert alike.mean == pytest.approx(0.3)
    assert alike.deviation == pytest.approx(0.0)
    assert np.isnan(alike[2:]).all()
    assert np.isnan(compare_over_seeds([np.nan, 0.1])).all()


def test_the_interval_over_seeds_covers_and_the_detectable_difference_is_found():
    """Seeds of models whose recalls vary, on the same images."""
    rng, seeds, trials = np.random.default_rng(4), 5, 500
    total = np.full((2, 6), 40)
    base = rng.uniform(0.5, 0.9, (2, 2, 6))  # of either method; each seed's models lie about it
    own = np.clip(base + rng.normal(0.0, 0.05, (trials, seeds, 2, 2, 6)), 0.0, 1.0)
    gap = compute_mean_abs_gap(rng.binomial(total, own).astype(float), total)
    differences = gap[..., 0] - gap[..., 1]
    truth = differences.mean()
    found = [compare_over_seeds(row) for row in differences]
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.93 <= covered <= 0.97
    shift = compute_detectable_difference(float(differences.std()), seeds)
    shifted = [compare_over_seeds(row - truth + shift) for row in differences]
    assert 0.76 <= np.mean([f.p < 0.05 for f in shifted]) <= 0.84


def test_the_detectable_difference_is_that_of_the_textbook():
    """For half a standard deviation, 80 % power takes 34 pairs (G*Power's manual and others)."""
    assert compute_detectable_difference(1.0, 33) > 0.5 > compute_detectable_difference(1.0, 34)
    assert compute_detectable_difference(0.02, 34) == pytest.approx(
        0.02 * compute_detectable_difference(1.0, 34)
    )
    # Many pairs: the normal approximation.
    assert compute_detectable_difference(1.0, 4000) * 4000**0.5 == pytest.approx(1.95996 + 0.84162, abs=2e-3)


@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize("tests", [1, 4])
def test_the_detectable_difference_is_found_in_four_cases_of_five(seeds, tests):
    rng, level = np.random.default_rng(seeds), 0.05 / tests
    values = np.array([0.01, 0.03] * 4)[:seeds]
    found = compare_over_seeds(values, tests=tests)
    assert found.detectable == pytest.approx(
        compute_detectable_difference(found.deviation, seeds, level=level)
    )
    drawn = rng.normal(found.detectable, found.deviation, (20_000, seeds))
    p = stats.ttest_1samp(drawn, 0.0, axis=1).pvalue
    assert np.mean(p < level) == pytest.approx(0.8, abs=0.012)


def test_words():
    assert choose_verdict(-0.1, 0.04, 3) == LOWER
    assert choose_verdict(0.1, 0.04, 3) == HIGHER
    assert choose_verdict(-0.1, 0.0501, 3) == NOTHING
    assert choose_verdict(-0.1, float("nan"), 3) == NOTHING
    assert choose_verdict(-0.1, 0.001, 1) == ONE_SEED
    assert choose_verdict(-0.1, 0.0501, 3, too_few=True) == TOO_FEW
    assert choose_verdict(-0.1, 0.04, 2, too_few=True) == LOWER
    assert choose_verdict(-0.1, float("nan"), 1, too_few=True) == ONE_SEED


@pytest.mark.parametrize(
    ("differences", "tests", "too_few"),
    [
        ([-0.25, -0.35], 1, True),  # 0.87 against 0.57
        ([0.001, -0.002], 1, True),  # two seeds find nothing
        ([0.0, 0.0], 1, True),
        ([-0.3, -0.3, -0.3], 1, True),  # how much it varies is not known
        ([-0.25, -0.35, -0.15], 1, True),  # 4.3 standard errors, as the t test needs
        ([-0.10, -0.35, -0.15], 1, True),  # 2.6: a test with a known deviation would find it
        ([-0.010, -0.035, -0.015], 1, True),
        ([-0.010, -0.035, -0.015], 9, False),  # such a test needs 2.8 with nine comparisons
        ([0.01, -0.02, 0.005], 1, False),
        ([0.6, -0.3, 0.1], 1, True),  # the t test would need more than 1
        ([0.01, 0.03, 0.002, 0.02], 1, True),
        ([0.01, 0.03, 0.002, 0.02, -0.01], 1, False),  # five seeds
        ([-0.3] * 5, 1, False),
        ([-0.3], 1, False),
        ([float("nan")] * 2, 1, False),
    ],
)
def test_seeds_that_are_too_few(differences, tests, too_few):
    found = compare_over_seeds(differences, tests=tests)
    assert are_seeds_too_few(found, len(differences), tests=tests) == too_few


def test_over_images_with_one_seed_is_the_paired_comparison():
    group, label, a, b = answers(np.random.default_rng(1), 600, 1)
    b &= ~((group == 0) & (label < 2) & (np.arange(600) % 4 == 0))
    found = compare_over_images(group, label, a, b, groups=2, classes=4, num_resamples=20_000)
    outcomes = count_paired_outcomes(group, label, a[0], b[0], groups=2, classes=4)
    expected = compare_paired_outcomes(outcomes, num_resamples=20_000)
    assert found[MAD]["difference"] == pytest.approx(expected["difference"], abs=1e-12)
    for key in ("low", "high"):
        assert found[MAD][key] == pytest.approx(expected[key], abs=0.004)
    assert found[MAD]["p"] == pytest.approx(expected["p"], abs=0.01)
    assert found["accuracy"]["difference"] == pytest.approx(a.mean() - b.mean())


def test_the_permutation_is_the_enumeration_of_all_swaps():
    rng = np.random.default_rng(7)
    group, label = np.repeat([0, 0, 1, 1], 4), np.tile([0, 1], 8)
    a = rng.random((3, 16)) < 0.7
    b = a.copy()
    b[:, :8] = rng.random((3, 8)) < 0.4  # eight images on which the methods may differ
    observed = gap_between(group, label, a, b, 2)
    extreme = 0
    for swapped in itertools.product([False, True], repeat=8):
        swap = np.array([*swapped, *[False] * 8])
        x, y = np.where(swap, b, a), np.where(swap, a, b)
        extreme += abs(gap_between(group, label, x, y, 2)) >= abs(observed) - 1e-12
    found = compare_over_images(group, label, a, b, groups=2, classes=2, num_resamples=40_000)
    assert found[MAD]["difference"] == pytest.approx(observed)
    assert found[MAD]["p"] == pytest.approx(extreme / 2**8, abs=0.01)


def test_the_bootstrap_draws_images_within_their_cells():
    """The same intervals as of images that are drawn one by one, for all seeds and both methods."""
    rng, classes = np.random.default_rng(3), 2
    group, label, a, b = answers(rng, 240, 2, classes=classes, unknown=0.2)
    cells = [np.flatnonzero((group == g) & (label == c)) for g in (-1, 0, 1) for c in range(classes)]
    gaps, accuracies = [], []
    for _ in range(1500):
        drawn = np.concatenate([rng.choice(cell, len(cell)) for cell in cells])
        x, y = a[:, drawn], b[:, drawn]
        gaps.append(gap_between(group[drawn], label[drawn], x, y, classes))
        accuracies.append(x.mean() - y.mean())
    found = compare_over_images(group, label, a, b, groups=2, classes=classes, num_resamples=20_000)
    for name, sampled in ((MAD, gaps), ("accuracy", accuracies)):
        low, high = np.quantile(sampled, (0.025, 0.975))
        middle = found[name]["difference"]
        shift = middle - np.mean(sampled)
        assert found[name]["low"] == pytest.approx(low + shift, abs=0.1 * (high - low))
        assert found[name]["high"] == pytest.approx(high + shift, abs=0.1 * (high - low))


def test_the_permutation_keeps_its_level():
    rng, trials, seeds = np.random.default_rng(12), 600, 3
    p_values = []
    for number in range(trials):
        group, label, a, b = answers(rng, 200, seeds)
        p_values.append(
            compare_over_images(group, label, a, b, groups=2, classes=4, num_resamples=99, seed=number)[MAD][
                "p"
            ]
        )
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07


def test_a_difference_is_found_and_identical_methods_have_none():
    group, label, a, _ = answers(np.random.default_rng(2), 2000, 3)
    b = a & ~((group == 1) & (np.arange(2000) % 3 == 0))
    found = compare_over_images(group, label, a, b, groups=2, classes=4, num_resamples=999)
    assert found[MAD]["high"] < 0.0
    assert found[MAD]["p"] == pytest.approx(0.001)
    assert found["accuracy"]["low"] > 0.0
    same = compare_over_images(group, label, a, a, groups=2, classes=4, num_resamples=99)
    # Answers that never differ do not say how much they would differ on other images.
    assert same[MAD].pop("difference") == same["accuracy"].pop("difference") == 0.0
    assert np.isnan([*same[MAD].values(), *same["accuracy"].values()]).all()


def test_one_image_that_differs_has_no_p_value():
    """The only swap turns the sign of the difference, whose size is all that counts."""
    group, label, a, _ = answers(np.random.default_rng(2), 300, 2, unknown=0.1)
    one = np.flatnonzero(group == 1)[0]
    b = a.copy()
    b[:, group == -1] ^= True  # of no known group: no part of a gap
    b[0, one] ^= True
    options = {"groups": 2, "classes": 4, "num_resamples": 60}
    found = compare_over_images(group, label, a, b, **options)
    assert np.isnan(found[MAD]["p"])
    assert found[MAD]["low"] < found[MAD]["high"]
    outcomes = count_paired_outcomes(group, label, a[0], b[0], groups=2, classes=4)
    assert np.isnan(compare_paired_outcomes(outcomes, num_resamples=60)["p"])
    b[1, np.flatnonzero(group == 1)[1]] ^= True
    assert 0.0 < compare_over_images(group, label, a, b, **options)[MAD]["p"] <= 1.0
    same = compare_paired_outcomes(count_paired_outcomes(group, label, a[0], a[0], groups=2, classes=4))
    assert same.pop("difference") == 0.0
    assert np.isnan(list(same.values())).all()


def test_without_two_groups_accuracy_remains():
    _, label, a, b = answers(np.random.default_rng(2), 100, 2)
    found = compare_over_images(np.full(100, -1), label, a, b, groups=2, classes=4, num_resamples=50)
    assert np.isnan(list(found[MAD].values())).all()
    assert found["accuracy"]["low"] <= found["accuracy"]["difference"] <= found["accuracy"]["high"]


def test_blocks_change_no_difference(monkeypatch):
    group, label, a, b = answers(np.random.default_rng(9), 300, 2)
    whole = compare_over_images(group, label, a, b, groups=2, classes=4, num_resamples=3000)
    monkeypatch.setattr("fairkd_jax.fairness.comparison._BLOCK", 5000)
    parts = compare_over_images(group, label, a, b, groups=2, classes=4, num_resamples=3000)
    for name in whole:
        for key, value in whole[name].items():
            assert parts[name][key] == pytest.approx(value, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 3))
def test_swapping_the_methods_flips_the_sign(number, seeds, groups):
    rng = np.random.default_rng(number)
    group, label = rng.integers(-1, groups, 60), rng.integers(0, 3, 60)
    a, b = rng.random((2, seeds, 60)) < 0.6
    options = {"groups": groups, "classes": 3, "num_resamples": 20}
    one, other = (
        compare_over_images(group, label, a, b, **options),
        compare_over_images(group, label, b, a, **options),
    )
    for name in one:
        assert one[name]["difference"] == pytest.approx(-other[name]["difference"], abs=1e-12, nan_ok=True)
    values = a.mean(axis=1) - b.mean(axis=1)
    there, back = compare_over_seeds(values), compare_over_seeds(-values)
    assert there.mean == -back.mean
    assert there.low == pytest.approx(-back.high, nan_ok=True)
    assert there.p == pytest.approx(back.p, nan_ok=True)
