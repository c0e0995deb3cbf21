"""The painted digits: the real images, the known bias, the paired test split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_reference

from fairkd_jax.data.digits.paint import TINTS, draw_groups, load_digits, paint_digit, split_digits
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.errors import UsageError


def test_embedded_digits_are_those_of_sklearn():
    images, labels = load_digits()
    reference = load_reference()
    np.testing.assert_array_equal(images, reference.images)
    np.testing.assert_array_equal(labels, reference.target)


def test_split_is_stratified_and_fixed():
    _, labels = load_digits()
    splits = split_digits(labels)
    for label in range(10):
        of_class = splits[labels == label]
        shares = [np.mean(of_class == name) for name in ("train", "val", "test")]
        np.testing.assert_allclose(shares, (0.60, 0.15, 0.25), atol=0.006)
    assert np.flatnonzero(splits == "test")[:4].tolist() == [7, 16, 20, 22]


@pytest.mark.parametrize("skew", [0.0, 0.5, 0.9, 1.0])
def test_skew_holds_in_each_class(skew):
    _, labels = load_digits()
    splits = split_digits(labels)
    groups = draw_groups(labels, splits, skew=skew, seed=3)
    assert set(groups[splits == "test"]) == {-1}
    for split in ("train", "val"):
        for label in range(10):
            own = groups[(splits == split) & (labels == label)] == label % 2
            assert own.sum() == round(skew * len(own))


def test_draw_depends_on_the_seed_alone():
    _, labels = load_digits()
    splits = split_digits(labels)
    first, again, other = (draw_groups(labels, splits, skew=0.9, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_tint_is_the_only_cue():
    images, _ = load_digits()
    blue, orange = (paint_digit(images[5], group, size=32, noise=0.2, seed=1, index=5) for group in (0, 1))
    assert blue.shape == (32, 32, 3)
    greys = [tinted / (255 * tint) for tinted, tint in zip((blue, orange), TINTS, strict=True)]
    np.testing.assert_allclose(greys[0][..., 0], greys[1][..., 0], atol=0.5 / 255 / 0.35 + 0.5 / 255)
    luma = TINTS @ (0.2126, 0.7152, 0.0722)
    assert abs(luma[0] - luma[1]) < 0.005
    noisy, other = (paint_digit(images[5], 0, size=32, noise=0.2, seed=seed, index=5) for seed in (1, 2))
    np.testing.assert_array_equal(noisy, blue)
    assert (noisy != other).any()


def test_data_set_is_skewed_and_its_test_is_paired(digits):
    assert digits.info.num_examples == {"train": 1078, "val": 269, "test": 900}
    train, test = digits.split("train"), digits.split("test")
    own = train.counts[np.arange(10) % 2, np.arange(10)]
    np.testing.assert_allclose(own / train.counts.sum(0), 0.9, atol=0.01)
    np.testing.assert_array_equal(test.counts[0], test.counts[1])
    assert [name.removesuffix("-blue") for name in test.ids[::2]] == [
        name.removesuffix("-orange") for name in test.ids[1::2]
    ]
    np.testing.assert_array_equal(test.groups, np.arange(900) % 2)
    np.testing.assert_array_equal(test.labels[::2], test.labels[1::2])
    ink, labels = load_digits()
    index = int(test.ids[0].split("-")[1])
    np.testing.assert_array_equal(
        test[0]["image"], paint_digit(ink[index], 0, size=8, noise=0, seed=0, index=index)
    )
    assert test[0]["label"] == labels[index]


def test_two_preparations_are_equal(digits, tmp_path):
    again = open_dataset("digits", directory=tmp_path, size=8)
    for name in ("train", "val", "test"):
        one, other = digits.split(name), again.split(name)
        assert one.ids == other.ids
        np.testing.assert_array_equal(one.read_images(), other.read_images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skew": 1.2}, "skew=1.2"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"source": "x"}, "take no source"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        open_dataset("digits", directory=tmp_path, size=8, **options)
