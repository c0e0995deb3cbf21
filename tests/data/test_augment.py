"""Augmentation: exact where it is off, torchvision's definitions where it is on, blind to devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fairkd_jax.data import augment as module
from fairkd_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD, Augmentation, augment, preprocess
from fairkd_jax.errors import UsageError

EVERYTHING = Augmentation((0.2, 1.0), flip=True, brightness=0.4, contrast=0.4, saturation=0.4)
KEY = jax.random.key(3)


def images(batch=16, height=12, width=12):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def unit(x):
    return np.asarray(x, np.float64) * IMAGENET_STD + IMAGENET_MEAN


@partial(jax.jit, static_argnames=("augmentation", "size"))
def jitted(key, x, augmentation, size):
    return augment(key, x, augmentation, size=size)


def test_preprocess_normalises_exactly():
    x = images()
    expected = (x / 255 - IMAGENET_MEAN) / IMAGENET_STD
    result = preprocess(x, size=12)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_preprocess_resizes_with_antialias():
    x = np.zeros((1, 32, 32, 3), np.uint8)
    x[:, ::2] = 255
    result = unit(preprocess(x, size=8))
    assert result.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(result[:, 1:-1], 0.5, atol=0.02)


@pytest.mark.parametrize("size", [12, 8, 20])
def test_off_is_preprocess(size):
    np.testing.assert_array_equal(
        augment(KEY, images(), Augmentation(), size=size), preprocess(images(), size=size)
    )


@pytest.mark.parametrize(("height", "width", "size"), [(12, 12, 12), (12, 16, 8), (10, 10, 24)])
def test_everything_on(height, width, size):
    x = images(height=height, width=width)
    result = jitted(KEY, x, EVERYTHING, size)
    assert result.shape == (16, size, size, 3)
    assert result.dtype == jnp.float32
    assert unit(result).min() > -1e-5
    assert unit(result).max() < 1 + 1e-5
    np.testing.assert_array_equal(result, jitted(KEY, x, EVERYTHING, size))
    assert np.abs(result - jitted(jax.random.key(4), x, EVERYTHING, size)).max() > 0.1


def test_sharding_changes_nothing():
    assert jax.device_count() == 8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(images(), NamedSharding(mesh, PartitionSpec("data")))
    result = jitted(KEY, sharded, EVERYTHING, 10)
    assert result.sharding.is_equivalent_to(sharded.sharding, 4)
    np.testing.assert_allclose(result, jitted(KEY, images(), EVERYTHING, 10), atol=2e-6)


def test_an_example_depends_on_its_position_alone():
    x = images()
    np.testing.assert_allclose(
        jitted(KEY, x, EVERYTHING, 12)[:4], jitted(KEY, x[:4], EVERYTHING, 12), atol=2e-6
    )
    same = np.repeat(x[:1], 16, axis=0)
    results = np.asarray(jitted(KEY, same, EVERYTHING, 12))
    assert len(np.unique(results.reshape(16, -1), axis=0)) == 16


def test_flip_mirrors_half_of_the_images():
    x = images(batch=512, height=2, width=2)
    result = np.asarray(augment(KEY, x, Augmentation(flip=True), size=2))
    plain = np.asarray(preprocess(x, size=2))
    flipped = (result == plain[:, :, ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(result[~flipped], plain[~flipped])
    assert 200 < flipped.sum() < 312  # five standard deviations


def test_crop_is_crop_then_resize():
    x = images(batch=6, height=14, width=18)
    augmentation = Augmentation(crop_scale=(0.1, 0.9))
    result = unit(jitted(KEY, x, augmentation, 9))
    draw = jax.jit(jax.vmap(lambda key: module._draw_crop_window(key, augmentation, 14, 18)))
    windows = np.stack(draw(module._make_example_keys(KEY, module._CROP, 6)), axis=1).astype(int)
    for row, (top, left, height, width) in enumerate(windows):
        assert 0 <= top <= top + height <= 14
        assert 0 <= left <= left + width <= 18
        part = jnp.asarray(x[row, top : top + height, left : left + width], jnp.float32) / 255
        expected = jax.image.resize(part, (9, 9, 3), "linear", antialias=True)
        np.testing.assert_allclose(result[row], expected, atol=1e-5)


def test_crop_windows_follow_scale_and_ratio():
    augmentation = Augmentation(crop_scale=(0.25, 0.5))
    draw = jax.jit(jax.vmap(lambda key: module._draw_crop_window(key, augmentation, 100, 100)))
    top, left, height, width = (np.asarray(v) for v in draw(jax.random.split(KEY, 2000)))
    areas, ratios = height * width / 1e4, width / height
    assert 0.24 < areas.min() < 0.26
    assert 0.49 < areas.max() < 0.51
    assert 0.73 < ratios.min() < 0.78
    assert 1.29 < ratios.max() < 1.36
    assert top.min() == left.min() == 0
    assert (top + height).max() == (left + width).max() == 100


def test_crop_that_never_fits_is_the_whole_image():
    wide = Augmentation(crop_scale=(0.9, 1.0), crop_ratio=(4.0, 5.0))
    np.testing.assert_allclose(jitted(KEY, images(), wide, 12), preprocess(images(), size=12), atol=1e-5)


def clip(x):
    return np.clip(x, 0, 1)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_follows_the_definitions(name):
    x = images(batch=64)
    result = unit(augment(KEY, x, Augmentation(**{name: 0.5}), size=12))
    purpose = {
        "brightness": module._BRIGHTNESS,
        "contrast": module._CONTRAST,
        "saturation": module._SATURATION,
    }[name]
    factors = np.asarray(module._draw_factors(KEY, purpose, 64, 0.5), np.float64)
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5
    plain = x / 255
    grey = (plain * (0.2989, 0.587, 0.114)).sum(-1, keepdims=True)
    other = {"brightness": 0, "contrast": grey.mean((1, 2, 3), keepdims=True), "saturation": grey}[name]
    np.testing.assert_allclose(result, clip(factors * plain + (1 - factors) * other), atol=1e-5)


def test_large_spread_never_draws_a_negative_factor():
    factors = module._draw_factors(KEY, module._CONTRAST, 500, 3.0)
    assert factors.min() >= 0


@pytest.mark.parametrize(
    "options",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.5)},
        {"crop_ratio": (2.0, 1.0)},
        {"brightness": -0.1},
    ],
)
def test_values_out_of_range(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Augmentation(**options)


def test_the_same_key_draws_the_same_at_every_size():
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 256, (6, 6, 6, 3), dtype=np.uint8), 8, axis=1), 8, axis=2)
    options = Augmentation(crop_scale=(0.3, 1.0), flip=True, brightness=0.3, contrast=0.3, saturation=0.3)
    small, large = (
        np.asarray(augment(jax.random.key(3), jnp.asarray(smooth), augmentation=options, size=size))
        for size in (24, 48)
    )
    halved = large.reshape(6, 24, 2, 24, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 0.05 * np.abs(small - np.roll(small, 1, axis=0)).mean()
