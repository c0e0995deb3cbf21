"""Probes of features of which it is known how well they tell the group."""

import numpy as np
import optax
import pytest

from fairkd_jax.fairness.probe import Sample, compute_cell_weights, compute_leakage, probe_features

CLASSES, WIDTH = 4, 6
SIZES = (1200, 400, 1200)
NATS = ("advantage", "standard_error", "accuracy", "label_accuracy")


def draw(rng, size, shares=(0.2, 0.8, 0.5, 0.7)):
    """Features that tell the class, and nothing of the group; the shares are of group 1 in each class."""
    label = rng.integers(0, CLASSES, size)
    group = (rng.random(size) < np.asarray(shares)[label]).astype(int)
    features = rng.normal(size=(size, WIDTH)) + 3.0 * np.eye(CLASSES, WIDTH)[label]
    return Sample(features.astype(np.float32), label, group)


def splits(change=lambda rng, sample: sample, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [change(rng, draw(rng, size, **options)) for size in SIZES]


def line(rng, sample):
    """The group moves all features."""
    return sample._replace(features=sample.features + 4.0 * (sample.group[:, None] - 0.5).astype(np.float32))


def xor(rng, sample):
    """The last two features agree in sign for group 0 and differ for group 1."""
    features, first = sample.features.copy(), rng.choice([-1.0, 1.0], len(sample.group))
    signs = np.stack([first, first * np.where(sample.group == 1, -1.0, 1.0)], axis=1)
    features[:, -2:] = signs + 0.25 * features[:, -2:]
    return sample._replace(features=features)


def ask(samples, num_groups=2, **options):
    return probe_features(*samples, num_groups=num_groups, num_classes=CLASSES, **options)


def same(first, second):
    np.testing.assert_equal(first, second)


@pytest.mark.parametrize("hidden", [(), (32,)])
def test_a_group_that_moves_the_features_is_read(hidden):
    found = ask(splits(line), hidden=hidden)
    assert found["advantage"] > np.log(2) - 0.03
    assert found["accuracy"] > 0.98
    assert found["label_accuracy"] == pytest.approx(0.5)
    assert found["num_images"] == SIZES[2]
    assert found["step"] > 0
    assert "reason" not in found
    low, high = found["interval"]
    assert low < found["advantage"] < high
    assert high - low == pytest.approx(2 * 1.96 * found["standard_error"], rel=1e-3)


def test_what_is_not_linear_takes_a_hidden_layer():
    samples = splits(xor)
    linear, mlp = ask(samples), ask(samples, hidden=(32,))
    assert abs(linear["advantage"]) < 0.02
    assert linear["accuracy"] == pytest.approx(0.5, abs=0.06)
    assert mlp["advantage"] > np.log(2) - 0.06
    assert mlp["accuracy"] > 0.97


@pytest.mark.parametrize("hidden", [(), (32,)])
@pytest.mark.parametrize("shares", [(0.5,) * CLASSES, (0.05, 0.95, 0.9, 0.1)])
def test_what_only_the_label_tells_is_no_advantage(shares, hidden):
    """With the second shares, 92 % of the groups can be guessed from the label, which the features tell."""
    found = ask(splits(shares=shares, seed=3), hidden=hidden)
    low, high = found["interval"]
    if found["step"]:
        assert abs(found["advantage"]) <= 3 * found["standard_error"]
        assert low <= found["advantage"] <= high
        assert high - low < 0.1
    else:
        assert found["advantage"] == 0
    assert found["advantage"] > -0.03
    assert found["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert found["label_accuracy"] == pytest.approx(0.5)


def test_what_a_probe_learns_by_heart_does_no_harm():
    """Twice as many features as images: without the choice by validation it would lose nats upon nats."""
    rng = np.random.default_rng(1)
    label, group = rng.integers(0, CLASSES, 100), rng.integers(0, 2, 100)
    noise = [Sample(rng.normal(size=(100, 200)).astype(np.float32), label, group) for _ in SIZES]
    assert -0.05 < ask(noise)["advantage"] < 0.1


def test_a_guess_costs_nothing_to_the_last_digit():
    """Where features are constant, no probe is better than the start on the validation images."""
    found = ask(splits(lambda rng, sample: sample._replace(features=np.full_like(sample.features, 0.3))))
    assert found["step"] == found["advantage"] == 0
    assert found["reason"] == "no probe was better than the label alone"
    assert np.isnan([found["standard_error"], *found["interval"]]).all()  # not for certain
    assert found["accuracy"] == found["label_accuracy"] == pytest.approx(0.5)
    label, group = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 2])
    present = np.array([[True] * 3, [True, False, True]])
    guess = compute_leakage(np.zeros((5, 3)), label, group, np.ones(5), present)
    assert guess["advantage"] == guess["standard_error"] == 0
    assert guess["accuracy"] == guess["label_accuracy"] == pytest.approx((3 / 3 + 2 / 2) / 5)


def test_images_of_unknown_group_change_nothing():
    samples = splits(line)
    rng = np.random.default_rng(5)

    def with_junk(sample):
        junk = (np.full((50, WIDTH), np.nan, np.float32), rng.integers(0, CLASSES, 50), np.full(50, -1))
        places = rng.integers(0, len(sample.label), 50)
        return Sample(*(np.insert(own, places, j, axis=0) for own, j in zip(sample, junk, strict=True)))

    same(ask([with_junk(sample) for sample in samples]), ask(samples))


def test_a_column_that_training_holds_constant_is_left_out():
    def widened(sample, value):
        column = np.full((len(sample.label), 1), value, np.float32)
        return sample._replace(features=np.concatenate([sample.features, column], axis=1))

    samples = splits(line)
    wide = [widened(sample, value) for sample, value in zip(samples, (0.1, 1e6, -1e6), strict=True)]
    assert ask(wide)["advantage"] == pytest.approx(ask(samples)["advantage"], abs=1e-5)


def three_groups(rng, sample):
    """Class 0 has two of three groups, class 1 has one, and the others have all."""
    group = rng.integers(0, 3, len(sample.label))
    group = np.where(sample.label == 0, 2 * (group > 0), np.where(sample.label == 1, 1, group))
    return sample._replace(features=sample.features + 6.0 * np.eye(3, WIDTH, 3)[group], group=group)


def test_more_than_two_groups_and_classes_that_lack_some():
    samples = splits(three_groups)
    found = ask(samples, num_groups=3)
    test = samples[2]
    entering = test.label != 1
    assert found["num_images"] == entering.sum()
    sizes = np.bincount(test.label, minlength=CLASSES)
    # Cells of a class weigh its size over G each.
    mass = sizes * np.array([2 / 3, 0, 1, 1])
    assert found["label_accuracy"] == pytest.approx(mass @ np.array([1 / 2, 0, 1 / 3, 1 / 3]) / mass.sum())
    best = mass @ np.log([2, 1, 3, 3]) / mass.sum()
    assert best - 0.06 < found["advantage"] < best
    assert found["accuracy"] > 0.97
    # Images of a group that their class lacks in training do not enter, whatever they show.
    stray = np.array([[100.0] * WIDTH] * 3, np.float32)
    more = (stray, np.array([0, 1, 1]), np.array([1, 0, 2]))
    strayed = Sample(*(np.concatenate(parts) for parts in zip(test, more, strict=True)))
    again = ask([*samples[:2], strayed], num_groups=3)
    assert again.pop("left_out") == [[0, 1], [1, 0], [1, 1], [2, 1]]
    assert found.pop("left_out") == [[1, 1]]
    same(again, found)


def test_a_group_with_few_test_images_of_a_class_is_not_reported_on():
    """One image would stand for half of its class."""
    samples = splits(line)
    test = samples[2]
    keep = (test.label != 0) | (test.group != 1) | (np.cumsum((test.label == 0) & (test.group == 1)) <= 3)
    found = ask([*samples[:2], Sample(*(part[keep] for part in test))])
    assert found["left_out"] == [[0, 0], [1, 0]]
    assert found["num_images"] == np.sum(test.label != 0)


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_where_nothing_can_be_compared_it_says_why(split):
    samples = dict(zip(("training", "validation", "test"), splits(line), strict=True))
    alone = samples[split]
    samples[split] = alone._replace(group=np.where(alone.label < 2, 0, -1))
    found = ask(samples.values())
    also = "" if split == "training" else f" and in {split}"
    also += " (10 each)" * (split == "test")
    assert found["reason"] == f"no class has images of two known groups in training{also}"
    assert np.isnan([found[key] for key in NATS] + found["interval"]).all()
    assert found["num_images"] == 0
    assert found["restart"] is found["step"] is None
    samples[split] = alone._replace(features=np.where(alone.label[:, None] == 1, np.inf, alone.features))
    assert ask(samples.values())["reason"] == f"the features of {split} images are not finite"
    assert found.keys() - {"reason"} == ask(splits(line)).keys()


def test_the_seed_decides():
    samples = splits(xor)
    first = ask(samples, hidden=(32,), seed=1)
    same(ask(samples, hidden=(32,), seed=1), first)
    assert ask(samples, hidden=(32,), seed=2)["advantage"] != first["advantage"]


def test_weights_make_groups_equally_frequent_within_each_class():
    training = np.array([[5, 3, 1, 0, 9], [4, 0, 1, 6, 9], [0, 0, 1, 2, 9]])
    counts = np.array([[10, 8, 3, 4, 5], [20, 2, 0, 6, 0], [30, 7, 6, 2, 0]])
    weights = compute_cell_weights(counts, training)
    expected = np.zeros((3, 5))
    for c in range(5):
        groups = [g for g in range(3) if counts[g, c] > 0 and training[g, c] > 0]
        for g in groups if len(groups) > 1 else ():
            expected[g, c] = sum(counts[h, c] for h in groups) / (3 * counts[g, c])
    np.testing.assert_allclose(weights, expected)
    assert not weights[:, [1, 4]].any()
    assert weights[:, 0] == pytest.approx([30 / 30, 30 / 60, 0])


def test_the_report_agrees_with_a_reference():
    rng = np.random.default_rng(2)
    present = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    label = rng.integers(0, 3, 200)
    group = np.array([rng.choice(np.flatnonzero(present[c])) for c in label])
    logits, weight = rng.normal(size=(200, 3)).astype(np.float32), rng.random(200)
    gains, hits, guesses = [], [], []
    for i in range(200):
        allowed = np.flatnonzero(present[label[i]])
        odds = np.exp(logits[i, allowed].astype(float))
        gains.append(np.log(len(allowed)) + np.log(odds[allowed == group[i]][0] / odds.sum()))
        hits.append(allowed[odds.argmax()] == group[i])
        guesses.append(1 / len(allowed))
    found = compute_leakage(logits, label, group, weight, present)
    mean = np.average(gains, weights=weight)
    assert found["advantage"] == pytest.approx(mean)
    assert found["accuracy"] == pytest.approx(np.average(hits, weights=weight))
    assert found["label_accuracy"] == pytest.approx(np.average(guesses, weights=weight))
    # The variance of a weighted mean, by leaving out one image after the other.
    kept = [np.delete(np.arange(200), i) for i in range(200)]
    without = np.array([np.average(np.asarray(gains)[rows], weights=weight[rows]) for rows in kept])
    jackknife = np.sqrt(199 / 200 * np.sum((without - without.mean()) ** 2))
    assert found["standard_error"] == pytest.approx(jackknife, rel=0.02)
    assert found["interval"] == pytest.approx([mean - 1.96 * jackknife, mean + 1.96 * jackknife], abs=0.01)


def test_a_kind_is_compiled_once(monkeypatch):
    ask(splits(line))
    monkeypatch.setattr(optax, "adamw", None)  # what is traced again would fail
    ask(splits(xor, seed=4), seed=1)
