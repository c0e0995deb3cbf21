"""What a test set can show: known figures of WIDER Attribute, and power that is really there."""

import numpy as np
import pytest

from fairkd_jax.fairness.inference import any_bias_test, paired_comparison
from fairkd_jax.fairness.power import power_of
from tests.fairness.test_inference import CLASSES, COUNTS


def test_the_floor_of_wider_attribute():
    """An unbiased model at 65 % on 3,465 images: mean 0.066, 95th percentile 0.089, about."""
    found = power_of(COUNTS, recall=0.65, discordant=0.2, draws=1500)
    assert found.unbiased_mean == pytest.approx(0.066, abs=0.004)
    assert found.unbiased_high == pytest.approx(0.089, abs=0.006)


def test_what_is_called_detectable_is_found_that_often():
    found = power_of(COUNTS, recall=0.65, discordant=0.2, draws=1500)
    rng, trials = np.random.default_rng(3), 150
    scale = found.detectable_gap * (np.pi / 2) ** 0.5
    hits = 0
    for number in range(trials):
        gap = rng.normal(0, scale, CLASSES)
        correct = rng.binomial(COUNTS, np.clip([0.65 + gap / 2, 0.65 - gap / 2], 0, 1))
        hits += any_bias_test(correct, COUNTS, draws=300, seed=number) <= 0.05
    assert 0.68 < hits / trials < 0.92


def test_more_images_show_smaller_gaps_and_two_alike_models_smaller_differences():
    few = power_of(COUNTS // 4, recall=0.65, discordant=0.2, draws=800)
    many = power_of(COUNTS * 4, recall=0.65, discordant=0.2, draws=800)
    assert many.detectable_gap < 0.5 * few.detectable_gap
    assert many.detectable_difference < 0.5 * few.detectable_difference
    alike = power_of(COUNTS, recall=0.65, discordant=0.02, draws=800)
    apart = power_of(COUNTS, recall=0.65, discordant=0.4, draws=800)
    assert alike.detectable_difference < 0.5 * apart.detectable_difference


def test_three_groups_and_nothing_to_compare():
    three = power_of(np.full((3, 5), 80), recall=0.7, discordant=0.1, draws=400)
    assert 0 < three.detectable_gap < 0.5
    assert np.isnan(power_of([[5, 0], [0, 5]], recall=0.7, discordant=0.1, draws=10)).all()
    assert np.isnan(paired_comparison(np.zeros((4, 2, 2), int), draws=10)["p"])
