"""The preparation plan of the painted digits, which need no download and have a known bias."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from fairkd_jax.data.digits.paint import GROUP_NAMES, draw_groups, load_digits, paint_digit, split_digits
from fairkd_jax.data.images import encode_image
from fairkd_jax.data.preparation_plan import Example, PreparationPlan, SourceImage
from fairkd_jax.errors import UsageError


def plan_digits(
    *, source: str, size: int, resize: str, skew: float = 0.9, seed: int = 0, noise: float = 0.0
) -> PreparationPlan:
    """Plans the preparation of the digits.

    Args:
      source: Must be "", because the digits are part of the package.
      size: Side of the images in pixels.
      resize: "squash" or "pad", without effect on square digits.
      skew: Share of the class's own group in each class of train and val, in [0, 1].
      seed: Random seed of the groups and of the noise.
      noise: Standard deviation of the noise on the grey value, in units of [0, 1].

    Raises:
      UsageError: An option is out of range.
    """
    if source:
        raise UsageError(f"the digits are part of the package and take no source; remove source={source!r}")
    if not 0 <= skew <= 1:
        raise UsageError(f"skew={skew} is out of range; use a number from 0 to 1")
    if not (noise >= 0 and math.isfinite(noise)):
        raise UsageError(f"noise={noise} is not a standard deviation; use a number of at least 0")
    if seed < 0:
        raise UsageError(f"seed={seed} is negative; use 0 or more")
    skew, noise = float(skew), float(noise)
    return PreparationPlan(
        name="digits",
        settings=f"s{size}-skew{skew!r}-noise{noise!r}-seed{seed}",
        source_digest=str,
        source="",
        missing_message="",
        size=size,
        resize=resize,
        class_names=tuple(map(str, range(10))),
        group_names=GROUP_NAMES,
        list_images=partial(_list_images, size, skew, seed, noise),
    )


def _list_images(size: int, skew: float, seed: int, noise: float, max_bytes: int) -> Iterator[SourceImage]:
    del max_bytes  # no file is read
    images, labels = load_digits()
    splits = split_digits(labels)
    groups = draw_groups(labels, splits, skew=skew, seed=seed)
    for index, (ink, label, split, drawn) in enumerate(zip(images, labels, splits, groups, strict=True)):
        for group in (0, 1) if drawn < 0 else (int(drawn),):
            name = f"digit-{index:04d}-{GROUP_NAMES[group]}"
            load = partial(_paint_png, ink, group, size, noise, seed, index)
            yield SourceImage(name, "", load, Example(name, str(split), int(label), group))


def _paint_png(ink: np.ndarray, group: int, size: int, noise: float, seed: int, index: int) -> bytes:
    return encode_image(paint_digit(ink, group, size=size, noise=noise, seed=seed, index=index), quality=0)
