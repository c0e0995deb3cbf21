"""Balanced draws, and the controls: what they change, and what they leave alone."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairkd_jax.data.batches import iterate_train_batches
from fairkd_jax.data.controls import paint_patches, shuffle_groups
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.data.sampling import GroupBalance, compute_balanced_counts
from fairkd_jax.errors import UsageError

arrays = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.integers(-1, 2), min_size=n, max_size=n),
    )
)


@settings(max_examples=60, deadline=None)
@given(arrays, st.integers(0, 2**32 - 1))
def test_a_balanced_draw_keeps_classes_and_unknown_groups(drawn, seed):
    labels, groups = (np.array(x, np.int32) for x in drawn)
    indices = np.arange(len(labels))
    found = GroupBalance(labels, groups, (3, 4))(indices, np.random.default_rng(seed))
    np.testing.assert_array_equal(labels[found], labels)
    np.testing.assert_array_equal(groups[found] < 0, groups < 0)
    np.testing.assert_array_equal(found[groups < 0], indices[groups < 0])


def test_groups_are_drawn_equally_often():
    labels = np.repeat([0, 1, 2], 100)
    groups = np.concatenate([np.arange(100) < 90, np.arange(100) < 20, np.zeros(100)]).astype(np.int32)
    balance, rng = GroupBalance(labels, groups, (2, 3)), np.random.default_rng(0)
    found = np.concatenate([balance(np.arange(300), rng) for _ in range(200)])
    counts = np.zeros((2, 3))
    np.add.at(counts, (groups[found], labels[found]), 1 / 200)
    original = np.zeros((2, 3), int)
    np.add.at(original, (groups, labels), 1)
    np.testing.assert_allclose(counts, compute_balanced_counts(original), atol=2.0)
    np.testing.assert_array_equal(compute_balanced_counts(original), [[50, 50, 100], [50, 50, 0]])
    # Each image of a cell is as likely as the others.
    rare = np.bincount(found, minlength=300)[:100][groups[:100] == 0]
    assert rare.min() > 0.85 * rare.mean()


def test_balanced_batches_depend_on_seed_and_step_alone(digits):
    split = digits.split("train")
    options = {"batch_size": 32, "seed": 3, "balanced": True, "with_images": False}
    whole = list(islice(iterate_train_batches(split, **options), 12))
    again = next(iterate_train_batches(split, start_step=7, **options))
    np.testing.assert_array_equal(again["index"], whole[7]["index"])
    parts = [
        next(iterate_train_batches(split, start_step=7, process_index=i, process_count=2, **options))["index"]
        for i in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole[7]["index"])
    for batch in whole:
        np.testing.assert_array_equal(split.groups[batch["index"]], batch["group"])
        np.testing.assert_array_equal(split.labels[batch["index"]], batch["label"])
    groups = np.concatenate([batch["group"] for batch in whole])
    labels = np.concatenate([batch["label"] for batch in whole])
    assert abs(np.mean(groups[labels % 2 == 0]) - 0.5) < 0.15  # 0.1 without


def test_a_patch_tells_the_group():
    black = np.zeros((32, 32, 3), np.uint8)
    painted = [paint_patches(black, group, 3) for group in range(3)]
    assert len({tuple(np.unique(image[image.any(axis=2)], axis=0).ravel()) for image in painted}) == 3
    assert paint_patches(black, -1, 3) is black
    assert not black.any()
    # Every window of half of the area shows one.
    side = int(np.ceil(32 * 0.5**0.5))
    for top in range(0, 32 - side + 1, 3):
        for left in range(0, 32 - side + 1, 3):
            assert painted[0][top : top + side, left : left + side].any()


def test_a_shuffle_keeps_the_counts_of_each_class():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 4, 300), rng.integers(-1, 3, 300).astype(np.int32)
    shuffled = shuffle_groups(labels, groups, seed=1)
    np.testing.assert_array_equal(shuffled < 0, groups < 0)
    assert (shuffled != groups).mean() > 0.3
    for label in range(4):
        rows = labels == label
        np.testing.assert_array_equal(np.sort(shuffled[rows]), np.sort(groups[rows]))
    np.testing.assert_array_equal(shuffled, shuffle_groups(labels, groups, seed=1))
    assert (shuffled != shuffle_groups(labels, groups, seed=2)).any()


def test_controls_change_what_is_seen_but_not_what_the_data_are(digits, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("controls"))
    plain, patched, shuffled = (
        open_dataset("digits", directory=directory, size=16, control=control)
        for control in ("none", "patch", "shuffle")
    )
    for name in ("train", "test"):
        digests = [dataset.split(name).compute_digest() for dataset in (plain, shuffled, patched)]
        assert digests[0] == digests[1] != digests[2]
        np.testing.assert_array_equal(shuffled.split(name).counts, plain.split(name).counts)
    first = np.arange(5)
    for name in ("train", "test"):
        before, after = (dataset.split(name).read_images(first) for dataset in (plain, patched))
        assert (before != after).any(axis=(1, 2, 3)).all()
        np.testing.assert_array_equal(before, shuffled.split(name).read_images(first))
    assert (shuffled.split("train").groups != plain.split("train").groups).any()
    for name in ("val", "test"):
        np.testing.assert_array_equal(shuffled.split(name).groups, plain.split(name).groups)
    with pytest.raises(UsageError, match="unknown control 'tint'; use one of none, patch, shuffle"):
        open_dataset("digits", directory=directory, size=16, control="tint")
