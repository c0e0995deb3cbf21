"""The inflation of disparity: its values, and its intervals against images that are drawn one by one."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fairkd_jax.fairness import compute_inflation, summarize
from fairkd_jax.fairness.inflation import NO_GAPS, NO_TEACHER_GAP, compare_with_teacher
from fairkd_jax.fairness.paired_comparison import count_paired_outcomes

NAMES = [f"{prefix}{name}" for prefix in ("", "corrected_") for name in ("difference", "percent")]


def draw_images(rng, recalls, images):
    """Group, label and answers of images; the models, with recalls [2, C] each, err on similar images."""
    shape = (*np.shape(recalls[0]), images)
    ease = rng.normal(size=shape)
    right = [
        (0.6**0.5 * ease + 0.4**0.5 * rng.normal(size=shape) < norm.ppf(own)[..., None]).ravel()
        for own in recalls
    ]
    group, label, _ = np.indices(shape)
    return group.ravel(), label.ravel(), *right


def make_recalls(gaps):
    """Recalls around 0.7, [2, C]."""
    return 0.7 + np.stack([gaps, -np.asarray(gaps)]) / 2


def compare(group, label, student, teacher, **options):
    classes = int(label.max()) + 1
    outcomes = count_paired_outcomes(group, label, student, teacher, groups=2, classes=classes)
    return compare_with_teacher(outcomes, **options)


def measure(group, label, right):
    """The mean |gap|, and the variances of the gaps, image by image."""
    gaps, variances = [], []
    for c in range(label.max() + 1):
        cells = [right[(label == c) & (group == g)] for g in (0, 1)]
        gaps.append(cells[0].mean() - cells[1].mean())
        variances.append(sum(cell.var(ddof=1) / len(cell) for cell in cells))
    return np.mean(np.abs(gaps)), np.array(variances)


def correct(value, variances):
    def excess(t):
        return np.mean(np.sqrt(2 / np.pi * (t**2 + variances))) - value

    return 0.0 if excess(0.0) >= 0 else np.sqrt(2 / np.pi) * brentq(excess, 0.0, 5.0)


def test_the_intervals_are_those_of_images_that_are_drawn_one_by_one():
    rng = np.random.default_rng(5)
    recalls = make_recalls([0.4, -0.3, 0.2, 0.5]), make_recalls([0.3, -0.2, 0.1, 0.3])
    group, label, student, teacher = draw_images(rng, recalls, 50)
    found = compare(group, label, student, teacher)
    assert found["reason"] == ""
    cells = [np.flatnonzero((group == g) & (label == c)) for g in (0, 1) for c in range(4)]
    drawn = []
    for _ in range(3000):
        rows = np.concatenate([rng.choice(cell, len(cell)) for cell in cells])
        drawn.append([measure(group[rows], label[rows], right[rows])[0] for right in (student, teacher)])
    drawn = np.array(drawn) - np.mean(drawn, axis=0)
    plain = [measure(group, label, right) for right in (student, teacher)]
    moved = [value + drawn[:, k] for k, (value, _) in enumerate(plain)]
    corrected = [[correct(v, own) for v in values] for values, (_, own) in zip(moved, plain, strict=True)]
    for prefix, (s, t) in (("", moved), ("corrected_", map(np.array, corrected))):
        for name, values in (("difference", s - t), ("percent", 100 * (s / t - 1))):
            low, high = np.quantile(values, [0.025, 0.975])
            ends = found[f"{prefix}{name}_interval"]
            assert ends == pytest.approx([low, high], abs=0.08 * (high - low)), (prefix, name)
            assert ends[0] < found[f"{prefix}{name}"] < ends[1]


def test_the_values_are_those_of_the_summaries():
    rng = np.random.default_rng(6)
    images = draw_images(rng, (make_recalls([0.5, -0.4, 0.3]), make_recalls([0.4, -0.3, 0.4])), 80)
    group, label = images[:2]
    summaries = []
    for right in images[2:]:
        counts = np.zeros((3, 3, 3), int)
        np.add.at(counts, (group, label, np.where(right, label, (label + 1) % 3)), 1)
        summaries.append(summarize(counts, num_resamples=0))
    expected, found = compute_inflation(*summaries), compare(*images, num_resamples=50)
    assert [found[name] for name in NAMES] == pytest.approx([expected[name] for name in NAMES], rel=1e-4)


def test_the_corrected_percentage_covers_the_true_one():
    recalls = make_recalls([0.1, -0.2, 0.3, 0.1, -0.4]), make_recalls([0.2, -0.3, 0.4, 0.2, -0.5])
    true = [np.mean(np.abs(own[0] - own[1])) for own in recalls]
    inside = 0
    for seed in range(60):
        found = compare(*draw_images(np.random.default_rng(seed), recalls, 60), num_resamples=400)
        low, high = found["corrected_percent_interval"]
        inside += low <= 100 * (true[0] / true[1] - 1) <= high
    assert inside >= 53


def test_there_is_no_percentage_of_a_teachers_disparity_that_may_be_nothing():
    images = draw_images(np.random.default_rng(7), (make_recalls([0.4, -0.4]), make_recalls([0.0, 0.0])), 60)
    found = compare(*images, num_resamples=500)
    assert found["reason"] == NO_TEACHER_GAP
    for prefix in ("", "corrected_"):
        assert np.isnan([found[f"{prefix}percent"], *found[f"{prefix}percent_interval"]]).all()
        low, high = found[f"{prefix}difference_interval"]
        assert 0 < low < found[f"{prefix}difference"] < high
    right = np.ones_like(images[2])
    assert compare(*images[:2], right, right, num_resamples=50)["reason"] == NO_TEACHER_GAP  # no error at all


def test_models_with_the_same_answers_differ_by_nothing_that_has_an_interval():
    recalls = make_recalls([0.6, -0.6])
    group, label, right, _ = draw_images(np.random.default_rng(8), (recalls, recalls), 60)
    found = compare(group, label, right, right, num_resamples=200)
    assert found["reason"] == ""
    assert [found[name] for name in NAMES] == [0.0] * 4
    assert np.isnan([found[f"{name}_interval"] for name in NAMES]).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_without_gaps_nothing_is_said(groups):
    outcomes = np.ones((4, groups, 3), int)
    outcomes[:, 1:] = 0
    found = compare_with_teacher(outcomes, num_resamples=20)
    assert found["reason"] == NO_GAPS
    assert np.isnan([found[name] for name in NAMES]).all()
    assert np.isnan([found[f"{name}_interval"] for name in NAMES]).all()
