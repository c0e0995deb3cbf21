"""What a test set can show: known figures of WIDER Attribute, and power that is really there."""

import functools
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from fairkd_jax.fairness.paired_comparison import compare_paired_outcomes
from fairkd_jax.fairness.permutation import compute_any_bias_p
from fairkd_jax.fairness.power import analyze_power
from tests.fairness.test_inference import CLASSES, COUNTS


def test_the_floor_of_wider_attribute():
    """An unbiased model at 65 % on 3,465 images: mean 0.066, 95th percentile 0.089, about."""
    found = analyze_power(COUNTS, recall=0.65, discordant=0.2, num_resamples=1500)
    assert found.unbiased_mean == pytest.approx(0.066, abs=0.004)
    assert found.unbiased_high == pytest.approx(0.089, abs=0.006)


def test_what_is_called_detectable_is_found_that_often():
    found = analyze_power(COUNTS, recall=0.65, discordant=0.2, num_resamples=1500)
    rng, trials = np.random.default_rng(3), 150
    scale = found.detectable_gap * (np.pi / 2) ** 0.5
    hits = 0
    for number in range(trials):
        gap = rng.normal(0, scale, CLASSES)
        correct = rng.binomial(COUNTS, np.clip([0.65 + gap / 2, 0.65 - gap / 2], 0, 1))
        hits += compute_any_bias_p(correct, COUNTS, num_resamples=300, seed=number) <= 0.05
    assert 0.68 < hits / trials < 0.92


RECALL, DISCORDANT = 0.7, 0.2
EVEN, SIZE = 4, 1000  # classes, and images of each class and group: enough for sums that are normal
LEVELS_AND_POWERS = pytest.mark.parametrize(("level", "power"), [(0.05, 0.8), (0.2, 0.6)])


@functools.cache
def power_of_even_cells(level, power):
    sizes = np.full((2, EVEN), SIZE)
    return analyze_power(
        sizes, recall=RECALL, discordant=DISCORDANT, level=level, power=power, num_resamples=2500
    )


@LEVELS_AND_POWERS
def test_the_detectable_difference_is_that_of_a_two_sided_test(level, power):
    """In closed form: the gaps of two models, and the mean difference of their sizes, are normal."""
    variance = 2 * RECALL * (1 - RECALL) / SIZE
    correlation = (RECALL - DISCORDANT / 2 - RECALL**2) / (RECALL * (1 - RECALL))
    together = np.sqrt(1 - correlation**2) + correlation * np.arcsin(correlation)
    spread = np.sqrt(2 * variance * (1 - 2 / np.pi * together) / EVEN)
    normal = NormalDist()

    def refused(difference):
        """How often one of the two tails is reached."""
        critical, shift = normal.inv_cdf(1 - level / 2), difference / spread
        return normal.cdf(shift - critical) + normal.cdf(-shift - critical)

    # The draws take some 1.5 % of these 5; a test of one side would find differences 11 % smaller, or more.
    found = power_of_even_cells(level, power).detectable_difference
    assert refused(0.95 * found) < power < refused(1.05 * found)


@LEVELS_AND_POWERS
def test_the_detectable_gap_is_that_of_the_test_of_any_bias(level, power):
    """In closed form: with normal gaps the statistic is chi-squared, times what they add to chance."""
    chance = 2 * RECALL * (1 - RECALL) / SIZE
    ratio = stats.chi2.ppf(1 - level, EVEN) / stats.chi2.ppf(1 - power, EVEN)
    expected = np.sqrt(2 / np.pi * chance * (ratio - 1))
    assert power_of_even_cells(level, power).detectable_gap == pytest.approx(expected, rel=0.05)


def test_more_images_show_smaller_gaps_and_two_alike_models_smaller_differences():
    few = analyze_power(COUNTS // 4, recall=0.65, discordant=0.2, num_resamples=800)
    many = analyze_power(COUNTS * 4, recall=0.65, discordant=0.2, num_resamples=800)
    assert many.detectable_gap < 0.5 * few.detectable_gap
    assert many.detectable_difference < 0.5 * few.detectable_difference
    alike = analyze_power(COUNTS, recall=0.65, discordant=0.02, num_resamples=800)
    apart = analyze_power(COUNTS, recall=0.65, discordant=0.4, num_resamples=800)
    assert alike.detectable_difference < 0.5 * apart.detectable_difference


def test_three_groups_and_nothing_to_compare():
    three = analyze_power(np.full((3, 5), 80), recall=0.7, discordant=0.1, num_resamples=400)
    assert 0 < three.detectable_gap < 0.5
    assert np.isnan(analyze_power([[5, 0], [0, 5]], recall=0.7, discordant=0.1, num_resamples=10)).all()
    assert np.isnan(compare_paired_outcomes(np.zeros((4, 2, 2), int), num_resamples=10)["p"])
