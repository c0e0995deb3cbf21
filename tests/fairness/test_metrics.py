"""Metrics against scikit-learn, fairlearn and an independent reference in plain python."""

import json
import math
from functools import partial

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, recall_score

from fairkd_jax.fairness import compute_inflation
from fairkd_jax.fairness.metrics import summarize as with_resamples
from fairkd_jax.files import make_jsonable

MEANS = (
    "mean_abs_disparity",
    "max_abs_disparity",
    "floor",
    "corrected_mean_abs_disparity",
    "d2",
    "worst_group_recall",
)
summarize = partial(with_resamples, num_resamples=0)
close = {"rel": 1e-12, "abs": 1e-12, "nan_ok": True}


def count_tensors(groups=(2, 3), high=12):
    shapes = st.tuples(st.sampled_from([g + 1 for g in groups]), st.integers(2, 5)).map(lambda s: (*s, s[1]))
    counts = shapes.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, high)))
    return st.builds(without_some_cells, counts, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2]))


def without_some_cells(counts, seed, share):
    """No examples of some classes in some groups, of some groups, and of some classes."""
    rng = np.random.default_rng(seed)
    kept = rng.random(counts.shape[:2]) >= share
    kept &= rng.random(counts.shape[:1])[:, None] >= share / 4
    return counts * (kept & (rng.random(counts.shape[1:2]) >= share / 4))[..., None]


def examples(counts):
    """The counts written out as lists of groups (-1 in the last row), labels and predictions."""
    index = np.argwhere(counts >= 0)
    group, label, prediction = np.repeat(index, counts.ravel(), axis=0).T
    return np.where(group == counts.shape[0] - 1, -1, group), label, prediction


def slow_gaps(counts, min_count=2):
    """(d, V) of every class and pair of groups with enough examples, by loops."""
    groups, classes = counts.shape[0] - 1, counts.shape[1]
    gaps = []
    for a in range(groups):
        for b in range(a + 1, groups):
            for c in range(classes):
                cells = []
                for g in (a, b):
                    n = int(sum(counts[g, c]))
                    if n >= min_count:
                        r = int(counts[g, c, c]) / n
                        cells.append((r, r * (1 - r) / (n - 1)))
                if len(cells) == 2:
                    gaps.append((cells[0][0] - cells[1][0], cells[0][1] + cells[1][1]))
    return gaps


def slow_corrected(gaps):
    """Bisection for t in mean sqrt(2 / pi) sqrt(t^2 + V) = mean |d|."""
    observed = sum(abs(d) for d, _ in gaps) / len(gaps)

    def expected(t):
        return sum(math.sqrt(2 / math.pi) * math.hypot(t, math.sqrt(v)) for _, v in gaps) / len(gaps)

    if observed <= expected(0.0):
        return 0.0
    low, high = 0.0, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < observed else (low, middle)
    return math.sqrt(2 / math.pi) * low


@settings(max_examples=60, deadline=None)
@given(counts=count_tensors())
def test_scores_equal_scikit_learn(counts):
    assume(counts.sum() > 0)
    _, label, prediction = examples(counts)
    summary = summarize(counts)
    assert summary["accuracy"] == pytest.approx(accuracy_score(label, prediction), **close)
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        scores = precision_recall_fscore_support(label, prediction, average=average, zero_division=0)
        for name, score in zip(("precision", "recall", "f1"), scores[:3], strict=True):
            assert summary[prefix + name] == pytest.approx(score, **close)
    assert summary["recall"] == pytest.approx(summary["accuracy"], **close)
    assert summary["num_examples"] == len(label)


@settings(max_examples=25, deadline=None)
@given(counts=count_tensors(groups=(2, 3, 5)))
def test_recalls_and_their_gaps_equal_fairlearn(counts):
    group, label, prediction = examples(counts)
    known = group >= 0
    assume(known.sum() > 1)  # fairlearn squeezes a single example away
    by_class = MetricFrame(
        metrics=accuracy_score,
        y_true=label[known],
        y_pred=prediction[known],
        sensitive_features=group[known],
        control_features=label[known],
    ).by_group
    shape = (counts.shape[0] - 1, counts.shape[1])
    recall, sizes = np.full(shape, np.nan), np.zeros(shape)
    for (c, g), value in by_class.items():
        recall[int(g), int(c)], sizes[int(g), int(c)] = value, np.sum((group == g) & (label == c))
    summary = summarize(counts)
    np.testing.assert_allclose(summary["recall_by_group"], recall, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(summary["counts_by_group"], sizes)
    gaps = np.full(shape[1], np.nan)
    for c, (values, n) in enumerate(zip(recall.T, sizes.T, strict=True)):
        if len(usable := values[n >= 2]) >= 2:
            gaps[c] = usable.max() - usable.min()
    np.testing.assert_allclose(np.abs(summary["disparity"]), gaps, atol=1e-12)
    expected = np.max(gaps, initial=-1.0, where=np.isfinite(gaps))
    assert summary["max_abs_disparity"] == pytest.approx(expected if expected >= 0 else math.nan, **close)


@settings(max_examples=25, deadline=None)
@given(counts=count_tensors(groups=(2, 3, 5)))
def test_accuracy_by_group_and_recall_by_class_are_theirs(counts):
    group, label, prediction = examples(counts)
    known = group >= 0
    assume(known.sum() > 1)
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=label[known],
        y_pred=prediction[known],
        sensitive_features=group[known],
    )
    summary = summarize(counts)
    accuracy = [frame.by_group.get(g, math.nan) for g in range(counts.shape[0] - 1)]
    np.testing.assert_allclose(summary["accuracy_by_group"], accuracy, rtol=1e-12, atol=1e-12)
    classes = np.arange(counts.shape[1])
    recall = recall_score(label, prediction, labels=classes, average=None, zero_division=np.nan)
    np.testing.assert_allclose(summary["per_class"], recall, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(summary["counts_by_class"], np.bincount(label, minlength=len(classes)))


@settings(max_examples=100, deadline=None)
@given(counts=count_tensors(groups=(1, 2, 4)))
def test_gap_measures_equal_the_slow_reference(counts):
    summary, gaps = summarize(counts), slow_gaps(counts)
    assert summary["num_gaps"] == len(gaps)
    if not gaps:
        assert all(math.isnan(summary[name]) for name in MEANS[:-1])
        return
    expected = {
        "mean_abs_disparity": sum(abs(d) for d, _ in gaps) / len(gaps),
        "max_abs_disparity": max(abs(d) for d, _ in gaps),
        "floor": sum(math.sqrt(2 * v / math.pi) for _, v in gaps) / len(gaps),
        "d2": sum(d * d - v for d, v in gaps) / len(gaps),
    }
    for name, value in expected.items():
        assert summary[name] == pytest.approx(value, **close)
    corrected = summary["corrected_mean_abs_disparity"]
    # Near the floor the root behaves like a square root: rounding is magnified.
    assert corrected == pytest.approx(slow_corrected(gaps), rel=1e-9, abs=3e-8)
    assert 0.0 <= corrected <= summary["mean_abs_disparity"] + 1e-12


@settings(max_examples=60, deadline=None)
@given(counts=count_tensors(), seed=st.integers(0, 1000))
def test_names_of_groups_and_classes_do_not_matter(counts, seed):
    rng = np.random.default_rng(seed)
    groups, classes = rng.permutation(counts.shape[0] - 1), rng.permutation(counts.shape[1])
    shuffled = counts[[*groups, counts.shape[0] - 1]][:, classes][:, :, classes]
    before, after = summarize(counts), summarize(shuffled)
    for name in (*MEANS, "accuracy", "precision", "recall", "f1", "macro_precision", "macro_f1"):
        assert after[name] == pytest.approx(before[name], rel=1e-9, abs=3e-8, nan_ok=True), name


@settings(max_examples=30, deadline=None)
@given(counts=count_tensors(groups=(2,)))
def test_swapping_two_groups_turns_the_sign(counts):
    before, after = summarize(counts), summarize(counts[[1, 0, 2]])
    np.testing.assert_array_equal(after["disparity"], -np.array(before["disparity"]))


@settings(max_examples=30, deadline=None)
@given(counts=count_tensors(), extra=st.integers(1, 20))
def test_unknown_groups_count_in_accuracy_and_never_in_gaps(counts, extra):
    more = counts.copy()
    more[-1] += extra * np.eye(counts.shape[1], dtype=counts.dtype)
    before, after = summarize(counts), summarize(more)
    for name in ("recall_by_group", "counts_by_group", "disparity", "not_estimable", *MEANS):
        np.testing.assert_equal(after[name], before[name])
    assert after["num_known_group"] == before["num_known_group"]
    assert after["num_examples"] == before["num_examples"] + extra * counts.shape[1]
    assert not after["accuracy"] < before["accuracy"]


def test_worked_example():
    # Class 0: 8 of 10 against 5 of 10; class 1: 4 of 4 against 1 of 2; class 2: nobody in group 1.
    counts = np.zeros((3, 3, 3), int)
    counts[0, 0], counts[1, 0] = [8, 2, 0], [5, 5, 0]
    counts[0, 1], counts[1, 1] = [0, 4, 0], [1, 1, 0]
    counts[0, 2], counts[2, 2] = [0, 0, 3], [3, 0, 0]
    summary = summarize(counts)
    np.testing.assert_allclose(summary["disparity"], [0.3, 0.5, math.nan])
    variance = [0.16 / 9 + 0.25 / 9, 0.25]
    assert summary["mean_abs_disparity"] == pytest.approx(0.4)
    assert summary["max_abs_disparity"] == pytest.approx(0.5)
    assert summary["floor"] == pytest.approx(np.mean(np.sqrt(2 * np.array(variance) / np.pi)))
    assert summary["d2"] == pytest.approx((0.09 + 0.25 - sum(variance)) / 2)
    assert summary["accuracy"] == pytest.approx(21 / 32)
    assert (summary["num_examples"], summary["num_known_group"]) == (32, 29)
    assert summary["worst_group_recall"] == pytest.approx(0.5)
    assert summary["worst_group"] == {"group": 1, "class": 0}
    assert summary["per_class"][2] == pytest.approx(0.5)
    assert summary["not_estimable"] == [
        {"class": 2, "counts": [3, 0], "reason": "not estimable (n=0 in group 1; 2 needed)"}
    ]
    assert summary["small_classes"] == [1]


def test_more_than_two_groups_compare_highest_with_lowest():
    counts = np.zeros((4, 2, 2), int)
    counts[0, 0], counts[1, 0], counts[2, 0] = [9, 1], [5, 5], [7, 3]
    counts[0, 1], counts[1, 1], counts[2, 1] = [0, 4], [2, 2], [1, 0]
    summary = summarize(counts)
    np.testing.assert_allclose(summary["disparity"], [0.4, 0.5])
    assert [pair["groups"] for pair in summary["pairs"]] == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_allclose(summary["pairs"][1]["disparity"], [0.2, math.nan])
    assert summary["mean_abs_disparity"] == pytest.approx((0.4 + 0.2 + 0.2 + 0.5) / 4)
    assert summary["not_estimable"][0]["class"] == 1


@pytest.mark.parametrize("shape", [(2, 3, 3), (3, 3, 3), (5, 2, 2)])
@pytest.mark.parametrize("fill", ["nothing", "unknown only", "one group only"])
def test_what_cannot_be_estimated_is_nan_with_a_reason(shape, fill):
    counts = np.zeros(shape, int)
    if fill != "nothing":
        counts[-1 if fill == "unknown only" else 0] = 5
    summary = summarize(counts)
    assert all(math.isnan(summary[name]) for name in MEANS[:-1])
    assert all(math.isnan(d) for d in summary["disparity"])
    assert [entry["class"] for entry in summary["not_estimable"]] == list(range(shape[1]))
    assert all(entry["reason"].startswith("not estimable (") for entry in summary["not_estimable"])
    assert math.isnan(summary["accuracy"]) == (fill == "nothing")
    assert math.isnan(summary["worst_group_recall"]) == (fill != "one group only")


def test_summary_survives_json():
    counts = np.random.default_rng(0).integers(0, 4, (3, 4, 4))
    summary = with_resamples(counts, num_resamples=50)
    np.testing.assert_equal(json.loads(json.dumps(summary)), summary)


def test_inflation():
    rng = np.random.default_rng(3)
    sizes, hits = np.full((2, 4), 50), rng.integers(5, 45, (2, 2, 4))
    summaries = []
    for h in hits:
        counts = np.zeros((3, 4, 4), int)
        counts[:2, np.arange(4), np.arange(4)] = h
        counts[:2, np.arange(4), (np.arange(4) + 1) % 4] = sizes - h
        summaries.append(summarize(counts))
    student, teacher = summaries
    result = compute_inflation(student, teacher)
    for prefix in ("", "corrected_"):
        s, t = (x[f"{prefix}mean_abs_disparity"] for x in (student, teacher))
        assert result[f"{prefix}difference"] == pytest.approx(s - t)
        assert result[f"{prefix}percent"] == pytest.approx(100 * (s / t - 1))


def test_inflation_over_a_teacher_without_gaps_is_nan():
    fair, biased = np.zeros((3, 2, 2), int), np.zeros((3, 2, 2), int)
    fair[:2] = [[5, 5], [5, 5]]
    biased[0], biased[1] = [[9, 1], [1, 9]], [[1, 9], [9, 1]]
    result = compute_inflation(summarize(biased), summarize(fair))
    assert result["difference"] == pytest.approx(0.8)
    assert math.isnan(result["percent"])
    assert math.isnan(result["corrected_percent"])
    with pytest.raises(ValueError, match="same images"):
        compute_inflation(summarize(2 * biased), summarize(fair))


def test_without_known_groups_there_is_accuracy_and_nothing_to_compare():
    counts = np.array([[[5, 1], [2, 4]]])
    summary = summarize(counts)
    assert summary["accuracy"] == pytest.approx(9 / 12)
    assert summary["num_known_group"] == 0
    assert math.isnan(summary["mean_abs_disparity"])
    assert all(math.isnan(gap) for gap in summary["disparity"])
    assert [entry["class"] for entry in summary["not_estimable"]] == [0, 1]


def test_mistakes_are_named():
    for shape in [(3, 2), (0, 2, 2), (3, 2, 3)]:
        with pytest.raises(ValueError, match=r"\[groups \+ 1, classes, classes\]"):
            summarize(np.zeros(shape, int))
    with pytest.raises(ValueError, match="min_count=1"):
        summarize(np.zeros((3, 2, 2), int), min_count=1)


def test_resamples_and_training_counts_can_be_left_out_and_added():
    counts = np.random.default_rng(0).integers(5, 50, (3, 4, 4))
    summary = summarize(counts)
    assert not {"corrected_interval", "any_bias_p", "intervals", "bias_amplification"} & summary.keys()
    whole = with_resamples(counts, num_resamples=200, training_counts=counts[:2].sum(axis=2))
    low, high = whole["corrected_interval"]
    assert low <= whole["corrected_mean_abs_disparity"] <= high
    assert 0 < whole["any_bias_p"] <= 1
    assert np.isfinite(whole["bias_amplification"])
    intervals = whole["intervals"]
    assert intervals.keys() == {"accuracy", "macro_recall", "f1", "accuracy_by_group"}
    for name in ("accuracy", "macro_recall", "f1"):
        assert intervals[name][0] < whole[name] < intervals[name][1]
    for (low, high), accuracy in zip(intervals["accuracy_by_group"], whole["accuracy_by_group"], strict=True):
        assert low < accuracy < high
    (pair,) = whole["pairs"]
    assert all(a <= d <= b for a, d, b in zip(pair["low"], pair["disparity"], pair["high"], strict=True))
    assert all(p <= adjusted for p, adjusted in zip(pair["p"], pair["holm_p"], strict=True))


@pytest.mark.parametrize("prediction", [[0, 1, 2], [0, 0, 0]])
def test_what_a_model_without_errors_or_with_one_answer_leaves_open_is_not_a_number(prediction):
    counts = np.zeros((3, 3, 3), int)
    counts[:2, np.arange(3), prediction] = 8
    summary = with_resamples(counts, num_resamples=200)
    assert summary["mean_abs_disparity"] == summary["corrected_mean_abs_disparity"] == 0.0
    low, high = summary["corrected_interval"]
    assert low == 0.0
    assert 0.1 < high < 0.3
    written = make_jsonable(summary)
    assert written["any_bias_p"] is None
    assert written["pairs"][0]["p"] == written["pairs"][0]["holm_p"] == [None] * 3
    assert all(
        low < 0.0 < high for low, high in zip(*(summary["pairs"][0][k] for k in ("low", "high")), strict=True)
    )
    assert written["intervals"]["accuracy"] == [None, None]
