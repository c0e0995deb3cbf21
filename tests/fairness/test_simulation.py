"""Intervals and tests keep what they promise on models of known bias; and the simulation is what it says."""

import numpy as np
import pytest

from fairkd_jax.fairness.paired_comparison import compare_paired_outcomes, count_paired_outcomes
from fairkd_jax.fairness.simulation import (
    ARRANGEMENTS,
    MEAN_GAPS,
    SimulationSettings,
    draw_paired_outcomes,
    draw_true_recalls,
    make_wider_counts,
    select_usable_counts,
    simulate,
    simulate_one_model,
    simulate_two_models,
)
from fairkd_jax.fairness.small_cells import list_scenarios

SIZES = make_wider_counts()


def slack(share, trials, deviations=2.5):
    """What chance takes from so large a share in so many trials."""
    return deviations * (share * (1 - share) / trials) ** 0.5


@pytest.fixture(scope="module")
def unbiased():
    return simulate_one_model(SimulationSettings(SIZES, trials=600, num_resamples=400), "normal", 0.0)


def test_unbiased_models(unbiased):
    assert unbiased["covers"] > 0.93
    assert unbiased["covers_expected"] == unbiased["covers"]
    assert 0.03 <= unbiased["rejected"] <= 0.07
    assert unbiased["newcombe"] > 0.93
    assert unbiased["plain"] == pytest.approx(0.066, abs=0.004)
    assert unbiased["corrected"] < 0.35 * unbiased["plain"]
    assert abs(unbiased["d2"]) < 5e-4


def test_a_bootstrap_of_the_mean_gap_does_not_cover(unbiased):
    assert unbiased["bootstrap"] == 0.0


@pytest.mark.parametrize("mean_gap", MEAN_GAPS[1:])
def test_the_corrected_interval_covers_normal_gaps(mean_gap):
    trials = 200
    found = simulate_one_model(
        SimulationSettings(SIZES, trials=trials, num_resamples=400), "normal", mean_gap
    )
    assert found["covers"] > 0.93 - slack(0.93, trials)
    assert found["covers_expected"] > 0.93 - slack(0.93, trials)
    assert found["newcombe"] > 0.93
    assert abs(found["corrected"]) < 0.008
    assert found["plain"] > 0.015
    assert found["bootstrap"] < 0.75
    if mean_gap >= 0.08:
        assert found["rejected"] > 0.8


@pytest.mark.parametrize("mean_gap", [0.04, 0.08, 0.12])
def test_the_corrected_interval_covers_equal_gaps(mean_gap):
    trials = 150
    found = simulate_one_model(SimulationSettings(SIZES, trials=trials, num_resamples=400), "equal", mean_gap)
    assert found["covers"] > 0.93 - slack(0.93, trials)
    assert abs(found["d2"]) < 1.5e-3


def test_the_paired_comparison_keeps_its_level():
    """Two models of the same quality and bias, whose answers are correlated."""
    found = simulate_two_models(SimulationSettings(SIZES, trials=400, num_resamples=199), 0.06)
    assert 0.03 <= found["rejected"] <= 0.07
    # Its interval covers a little less than it says, and noise hides much of a difference in mean |gap|.
    assert found["covers"] > 0.9 - slack(0.9, 400)
    assert 0 < found["shown"] < 0.05


def test_recalls_are_as_arranged():
    rng = np.random.default_rng(0)
    for name in ARRANGEMENTS:
        recall = draw_true_recalls(name, 0.1, 0.6, 4000, rng)
        gap = np.abs(recall[0] - recall[1])
        assert gap.mean() == pytest.approx(0.1, rel=1e-9 if name != "normal" else 0.05)
        np.testing.assert_allclose(recall.mean(axis=0), 0.6)
        assert np.mean(gap > 1e-12) == (0.25 if name == "few" else 1.0)
    extreme = draw_true_recalls("few", 0.2, 0.9, 16, rng)
    assert extreme.min() >= 0
    assert extreme.max() == 1


@pytest.mark.parametrize("discordant", [0.0, 0.2, 0.9])
def test_outcomes_of_two_models_have_their_recalls(discordant):
    sizes = np.full((2, 2), 200_000)
    first, second = np.array([[0.7, 0.6], [0.5, 0.95]]), np.array([[0.7, 0.4], [0.6, 0.98]])
    outcomes = draw_paired_outcomes(sizes, first, second, discordant, np.random.default_rng(1))
    both, only_first, only_second, _ = outcomes
    np.testing.assert_array_equal(outcomes.sum(axis=0), sizes)
    np.testing.assert_allclose((both + only_first) / sizes, first, atol=0.006)
    np.testing.assert_allclose((both + only_second) / sizes, second, atol=0.006)
    assert (only_first + only_second)[0, 0] / sizes[0, 0] == pytest.approx(min(discordant, 0.6), abs=0.006)
    index = np.indices(outcomes.shape)
    kind, group, label = (np.repeat(i.ravel(), outcomes.ravel()) for i in index)
    again = count_paired_outcomes(group, label, kind < 2, (kind == 0) | (kind == 2), groups=2, classes=2)
    np.testing.assert_array_equal(again, outcomes)
    assert np.isfinite(compare_paired_outcomes(outcomes // 1000, num_resamples=20)["difference"])


def test_every_line_is_simulated_and_the_seed_decides():
    setting = SimulationSettings(SIZES[:, :3], trials=2, num_resamples=20)
    rows = list(simulate(setting, (0.0, 0.1)))
    small = len(list_scenarios())
    assert [name for name, _ in rows] == ["one model"] * 4 + ["two models"] * 2 + ["small cells"] * small
    assert [row["arrangement"] for _, row in rows[:4]] == ["normal", "normal", "equal", "few"]
    assert rows == list(simulate(setting, (0.0, 0.1)))
    other = list(simulate(setting._replace(seed=1), (0.0, 0.1)))
    # Of models without errors all test sets are the same.
    assert [a == b for a, b in zip(rows, other, strict=True)] == [
        row.get("scenario") == "recalls 1 and 1" for _, row in rows
    ]
    assert list(simulate(setting, (0.0, 0.1), ["two models"])) == rows[4:6]


def test_the_counts():
    assert SIZES.shape == (2, 16)
    assert SIZES.sum() == 3465
    np.testing.assert_array_equal(select_usable_counts([[5, 1, 2], [9, 4, 2]]), [[5, 2], [9, 2]])
