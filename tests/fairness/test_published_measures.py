"""The measures that other papers print, against references that look at one image after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fairkd_jax.fairness.probabilities import compute_auroc, compute_ece, compute_probability_measures
from fairkd_jax.fairness.published_measures import compute_cell_accuracies, compute_rate_gaps

NAN = float("nan")


def share(values):
    return sum(values) / len(values) if values else None


def spread(rates):
    rates = [rate for rate in rates if rate is not None]
    return max(rates) - min(rates) if len(rates) > 1 else NAN


def refer_rates(label, group, prediction, classes, groups):
    """Gaps of each class, image by image."""
    found = {"spd": [], "eod": [], "deo": [], "aaod": []}
    images = list(zip(label, group, prediction, strict=True))
    for c in range(classes):
        rates = {"selection": [], "true": [], "false": []}
        for g in range(groups):
            own = [(y, p) for y, h, p in images if h == g]
            rates["selection"].append(share([p == c for _, p in own]))
            rates["true"].append(share([p == c for y, p in own if y == c]))
            rates["false"].append(share([p == c for y, p in own if y != c]))
        true, false = spread(rates["true"]), spread(rates["false"])
        found["spd"].append(spread(rates["selection"]))
        found["eod"].append(true)
        found["deo"].append(NAN if np.isnan(true) or np.isnan(false) else max(true, false))
        found["aaod"].append((true + false) / 2)
    return found


@st.composite
def predictions(draw):
    classes, groups = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    count = draw(st.integers(0, 30))
    rows = st.tuples(st.integers(0, classes - 1), st.integers(0, groups - 1), st.integers(0, classes - 1))
    images = draw(st.lists(rows, min_size=count, max_size=count))
    label, group, prediction = np.array(images, int).reshape(-1, 3).T
    return label, group, prediction, classes, groups


def count(label, group, prediction, classes, groups):
    counts = np.zeros((groups, classes, classes), np.int64)
    np.add.at(counts, (group, label, prediction), 1)
    return counts


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_rate_gaps_equal_the_reference(case):
    found, expected = compute_rate_gaps(count(*case)), refer_rates(*case)
    for name, values in expected.items():
        np.testing.assert_allclose(found["per_class"][name], values, atol=1e-12)
        used = [value for value in values[1 if case[3] == 2 else 0 :] if not np.isnan(value)]
        np.testing.assert_allclose(found[name], np.mean(used) if used else NAN, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(predictions(), st.integers(0, 10**6))
def test_accuracies_of_cells_equal_the_reference(case, seed):
    label, group, prediction, classes, groups = case
    training = np.random.default_rng(seed).integers(0, 4, (groups, classes))
    cells = [
        share([p == c for y, h, p in zip(label, group, prediction, strict=True) if (y, h) == (c, g)])
        for c in range(classes)
        for g in range(groups)
    ]
    favoured = {}
    for c in range(classes):
        column = training[:, c].tolist()
        if column.count(max(column)) == 1:
            favoured[c] = column.index(max(column))
    sides = {True: [], False: []}
    for y, h, p in zip(label, group, prediction, strict=True):
        if y in favoured:
            sides[bool(favoured[y] == h)].append(p == y)
    expected = {
        "unbiased_accuracy": np.mean([cell for cell in cells if cell is not None] or [NAN]),
        "accuracy_with_skew": NAN if not sides[True] else share(sides[True]),
        "accuracy_against_skew": NAN if not sides[False] else share(sides[False]),
    }
    found = compute_cell_accuracies(count(*case), training)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12)


def test_of_two_classes_the_second_alone_counts():
    counts = np.array([[[8, 2], [1, 9]], [[6, 4], [5, 5]]])
    found = compute_rate_gaps(counts)
    assert found["eod"] == pytest.approx(0.9 - 0.5)
    assert found["deo"] == pytest.approx(0.4)
    assert found["aaod"] == pytest.approx((0.4 + 0.2) / 2)
    assert found["spd"] == pytest.approx(11 / 20 - 9 / 20)


def draw_probabilities(seed, rows, classes, *, coarse):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 4, (rows, classes)) if coarse else rng.gamma(0.5, size=(rows, classes))
    return values / values.sum(axis=1, keepdims=True), rng.integers(0, classes, rows)


@pytest.mark.parametrize("coarse", [False, True])  # coarse probabilities are often equal
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_area_equals_that_of_scikit_learn(classes, coarse):
    values, label = draw_probabilities(classes, 200, classes, coarse=coarse)
    expected = [roc_auc_score(label == c, values[:, c]) for c in range(classes)]
    assert compute_auroc(values, label) == pytest.approx(np.mean(expected), abs=1e-12)
    present = label != 0
    left = (
        [roc_auc_score(label[present] == c, values[present, c]) for c in range(1, classes)]
        if classes > 2
        else []
    )
    found = compute_auroc(values[present], label[present])
    assert (np.isnan(found) and not left) or found == pytest.approx(np.mean(left), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_calibration_error_equals_the_reference(seed):
    values, label = draw_probabilities(seed, 150, 3, coarse=seed % 2 == 0)
    expected, confidence = 0.0, values.max(axis=1)
    correct = values.argmax(axis=1) == label
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        own = (confidence > low) & (confidence <= high)
        if own.any():
            expected += own.mean() * abs(correct[own].mean() - confidence[own].mean())
    assert compute_ece(values, label) == pytest.approx(expected, abs=1e-12)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    values = np.eye(3)[[0, 1, 2, 0]]
    assert compute_ece(values, np.array([0, 1, 2, 0])) == 0
    assert compute_ece(values, np.array([1, 2, 0, 1])) == 1


def test_measures_by_group_leave_unknown_groups_out():
    values, label = draw_probabilities(5, 60, 3, coarse=False)
    group = np.arange(60) % 4 - 1
    found = compute_probability_measures(values, label, group, 4)
    assert found["ece"] == compute_ece(values, label)
    for g in range(3):
        own = group == g
        assert found["auroc_by_group"][g] == compute_auroc(values[own], label[own])
        assert found["ece_by_group"][g] == compute_ece(values[own], label[own])
    assert np.isnan([found["ece_by_group"][3], found["auroc_by_group"][3]]).all()
