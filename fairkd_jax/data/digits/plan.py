"""The plan of the painted digits: nothing to download, and a bias of known size."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from fairkd_jax.data.digits.paint import GROUP_NAMES, draw_groups, load_digits, paint, split_digits
from fairkd_jax.data.images import encode_image
from fairkd_jax.data.plan import Entry, Example, Plan
from fairkd_jax.errors import UsageError


def plan(
    *, source: str, size: int, resize: str, skew: float = 0.9, seed: int = 0, noise: float = 0.0
) -> Plan:
    """Plans the digits.

    Args:
      source: must be "": the digits lie in the package.
      size: side of the images in pixels.
      resize: has no effect on square digits.
      skew: share of the class's own group in each class of train and val, in [0, 1].
      seed: of the draw of groups and of the noise.
      noise: standard deviation of the noise on the grey value, in units of [0, 1].

    Raises:
      UsageError: an option outside its range.
    """
    if source:
        raise UsageError(f"digits lie in the package and take no source; leave out source={source!r}")
    if not 0 <= skew <= 1:
        raise UsageError(f"skew={skew} is no share; use a number from 0 to 1")
    if not (noise >= 0 and math.isfinite(noise)):
        raise UsageError(f"noise={noise} is no standard deviation; use a number of at least 0")
    if seed < 0:
        raise UsageError(f"seed={seed} is negative; use 0 or more")
    skew, noise = float(skew), float(noise)
    return Plan(
        name="digits",
        settings=f"s{size}-skew{skew!r}-noise{noise!r}-seed{seed}",
        identity="",
        source="",
        missing="",
        size=size,
        resize=resize,
        class_names=tuple(map(str, range(10))),
        group_names=GROUP_NAMES,
        entries=partial(_entries, size, skew, seed, noise),
    )


def _entries(size: int, skew: float, seed: int, noise: float) -> Iterator[Entry]:
    images, labels = load_digits()
    splits = split_digits(labels)
    groups = draw_groups(labels, splits, skew=skew, seed=seed)
    for index, (ink, label, split, drawn) in enumerate(zip(images, labels, splits, groups, strict=True)):
        for group in (0, 1) if drawn < 0 else (int(drawn),):
            name = f"digit-{index:04d}-{GROUP_NAMES[group]}"
            load = partial(_png, ink, group, size, noise, seed, index)
            yield Entry(name, "", load, Example(name, str(split), int(label), group))


def _png(ink: np.ndarray, group: int, size: int, noise: float, seed: int, index: int) -> bytes:
    return encode_image(paint(ink, group, size=size, noise=noise, seed=seed, index=index), quality=0)
