"""Preprocessing and augmentation on the device, inside the step.

The random choices for an example are a function of the key and of the example's position in the global batch.
They do not depend on the distribution of the batch over devices. Crop and resize are two products with weight
matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GREY = (0.2989, 0.587, 0.114)  # luma weights of R, G, B (ITU-R BT.601)
_TRIES = 10  # random crop windows per image
_CROP, _FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION = range(5)


@dataclass(frozen=True)
class Augmentation:
    """Settings of the random changes to an image; the default changes nothing.

    Attributes:
      crop_scale: Smallest and largest share of the area that a crop keeps; (1, 1) = no crop.
      crop_ratio: Smallest and largest ratio of a crop's width to its height.
      flip: Whether half of the images are mirrored left to right.
      brightness: Spread b of the brightness factor, drawn from [max(0, 1 - b), 1 + b]; 0 = off.
      contrast: Spread of the contrast factor around the image's mean grey; 0 = off.
      saturation: Spread of the saturation factor around the grey of each pixel; 0 = off.

    Raises:
      UsageError: A value is out of range.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        """Checks the range of each value."""
        least, largest = self.crop_scale
        if not 0 < least <= largest <= 1:
            raise UsageError(
                f"crop_scale={self.crop_scale} is not a range of shares; use 0 < least <= largest <= 1"
            )
        least, largest = self.crop_ratio
        if not 0 < least <= largest:
            raise UsageError(
                f"crop_ratio={self.crop_ratio} is not a range of ratios; use 0 < least <= largest"
            )
        for name in ("brightness", "contrast", "saturation"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}={getattr(self, name)} is negative; use 0 (off) or more")


def preprocess(
    images: jax.Array,
    *,
    size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> jax.Array:
    """Resizes images where needed (bilinear, antialiased) and normalises the pixels.

    Args:
      images: Images, uint8 [B, H, W, 3].
      size: Side of the result in pixels.
      mean: Mean of each channel, in [0, 1].
      std: Standard deviation of each channel, in units of [0, 1].

    Returns:
      Model inputs, float32 [B, size, size, 3]: (x / 255 - mean) / std.
    """
    return _normalize_images(_resize_images(_scale_to_unit(images), size), mean, std)


def augment(
    key: jax.Array,
    images: jax.Array,
    augmentation: Augmentation,
    *,
    size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> jax.Array:
    """Changes images at random, resizes the images and normalises the pixels.

    The order is crop and resize, flip, brightness, contrast, saturation, normalisation. With every change
    switched off, the result equals that of `preprocess` exactly.

    Args:
      key: JAX random key of this step.
      images: Images of the global batch, uint8 [B, H, W, 3].
      augmentation: Settings of the random changes; static under `jax.jit`.
      size: Side of the result in pixels.
      mean: Mean of each channel, in [0, 1].
      std: Standard deviation of each channel, in units of [0, 1].

    Returns:
      Model inputs, float32 [B, size, size, 3].
    """
    batch = images.shape[0]
    x = _scale_to_unit(images)
    if augmentation.crop_scale == (1.0, 1.0):
        x = _resize_images(x, size)
    else:
        x = _crop_images(_make_example_keys(key, _CROP, batch), x, augmentation, size)
    if augmentation.flip:
        flips = jax.vmap(jax.random.bernoulli)(_make_example_keys(key, _FLIP, batch))
        x = jnp.where(flips.reshape(-1, 1, 1, 1), x[:, :, ::-1], x)
    if augmentation.brightness:
        x = _blend_images(
            x, jnp.zeros_like(x), _draw_factors(key, _BRIGHTNESS, batch, augmentation.brightness)
        )
    if augmentation.contrast:
        mean_grey = jnp.mean(_compute_grey(x), axis=(1, 2), keepdims=True)
        x = _blend_images(x, mean_grey, _draw_factors(key, _CONTRAST, batch, augmentation.contrast))
    if augmentation.saturation:
        x = _blend_images(
            x, _compute_grey(x), _draw_factors(key, _SATURATION, batch, augmentation.saturation)
        )
    return _normalize_images(x, mean, std)


def _scale_to_unit(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255


def _normalize_images(x: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    mean_1113, std_1113 = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3) for values in (mean, std))
    return (x - mean_1113) / std_1113


def _resize_images(x: jax.Array, size: int) -> jax.Array:
    if x.shape[1:3] == (size, size):
        return x
    return jax.image.resize(x, (x.shape[0], size, size, 3), "linear", antialias=True)


def _make_example_keys(key: jax.Array, purpose: int, batch: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        jax.random.fold_in(key, purpose), jnp.arange(batch)
    )


def _draw_factors(key: jax.Array, purpose: int, batch: int, spread: float) -> jax.Array:
    """Returns factors, float32 [B, 1, 1, 1], uniform in [max(0, 1 - spread), 1 + spread]."""
    least, largest = max(0.0, 1 - spread), 1 + spread
    draw = jax.vmap(lambda example_key: jax.random.uniform(example_key, minval=least, maxval=largest))
    return draw(_make_example_keys(key, purpose, batch)).reshape(-1, 1, 1, 1)


def _blend_images(x: jax.Array, other: jax.Array, factors: jax.Array) -> jax.Array:
    return jnp.clip(factors * x + (1 - factors) * other, 0, 1)


def _compute_grey(x: jax.Array) -> jax.Array:
    return jnp.sum(x * jnp.asarray(_GREY, jnp.float32).reshape(1, 1, 1, 3), axis=-1, keepdims=True)


def _crop_images(keys: jax.Array, x: jax.Array, augmentation: Augmentation, size: int) -> jax.Array:
    _, height, width, _ = x.shape
    draw = jax.vmap(lambda key: _draw_crop_window(key, augmentation, height, width))
    top_b, left_b, height_b, width_b = draw(keys)
    rows_bsh = _compute_resize_weights(top_b, height_b, height, size)
    columns_bsw = _compute_resize_weights(left_b, width_b, width, size)
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("bsh,bhwc->bswc", rows_bsh, x, precision=highest)
    return jnp.einsum("btw,bswc->bstc", columns_bsw, x, precision=highest)


def _draw_crop_window(
    key: jax.Array, augmentation: Augmentation, height: int, width: int
) -> tuple[jax.Array, ...]:
    """Draws a crop window of whole pixels: top, left, height, width, each float32 [].

    The function draws ten pairs of area and ratio and takes the first pair that fits in the image. If no pair
    fits, the window is the whole image.
    """
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
    low, high = augmentation.crop_scale
    areas_t = height * width * jax.random.uniform(area_key, (_TRIES,), minval=low, maxval=high)
    low, high = augmentation.crop_ratio
    ratios_t = jnp.exp(jax.random.uniform(ratio_key, (_TRIES,), minval=jnp.log(low), maxval=jnp.log(high)))
    heights_t, widths_t = jnp.round(jnp.sqrt(areas_t / ratios_t)), jnp.round(jnp.sqrt(areas_t * ratios_t))
    fits_t = (heights_t >= 1) & (heights_t <= height) & (widths_t >= 1) & (widths_t <= width)
    first = jnp.argmax(fits_t)
    crop_height = jnp.where(fits_t[first], heights_t[first], height)
    crop_width = jnp.where(fits_t[first], widths_t[first], width)
    top = jnp.floor(jax.random.uniform(top_key) * (height - crop_height + 1))
    left = jnp.floor(jax.random.uniform(left_key) * (width - crop_width + 1))
    return top, left, crop_height, crop_width


def _compute_resize_weights(
    start_b: jax.Array, length_b: jax.Array, in_size: int, out_size: int
) -> jax.Array:
    """Computes weights that resize the window [start, start + length) of an axis.

    The filter is a triangle. When the window shrinks, the triangle is wider (antialiasing). Pixels outside
    the window have weight 0.

    Returns:
      Weights, float32 [B, out_size, in_size]; each row sums to 1.
    """
    step_b11 = (length_b / out_size).reshape(-1, 1, 1)
    start_b11 = start_b.reshape(-1, 1, 1)
    centres_bs1 = start_b11 + (jnp.arange(out_size).reshape(1, -1, 1) + 0.5) * step_b11 - 0.5
    pixels_11i = jnp.arange(in_size, dtype=jnp.float32).reshape(1, 1, -1)
    inside_b1i = (pixels_11i >= start_b11) & (pixels_11i < start_b11 + length_b.reshape(-1, 1, 1))
    distances_bsi = jnp.abs(pixels_11i - centres_bs1) / jnp.maximum(step_b11, 1)
    weights_bsi = jnp.where(inside_b1i, jnp.maximum(0, 1 - distances_bsi), 0)
    return weights_bsi / jnp.sum(weights_bsi, axis=-1, keepdims=True)
