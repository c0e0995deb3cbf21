"""The table of data sets."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fairkd_jax.data.digits.plan import plan as digits
from fairkd_jax.data.images import RESIZE_MODES
from fairkd_jax.data.manifest.plan import plan as manifest
from fairkd_jax.data.plan import Plan
from fairkd_jax.data.utkface.plan import plan as utkface
from fairkd_jax.data.wider_attribute.plan import plan as wider_attribute
from fairkd_jax.errors import UsageError

DATASETS: dict[str, Callable[..., Plan]] = {
    "digits": digits,
    "manifest": manifest,
    "utkface": utkface,
    "wider_attribute": wider_attribute,
}
MAX_SIZE = 4096
_COMMON = ("source", "size", "resize")


def effective_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The data set's own options, given or by default."""
    parameters = inspect.signature(DATASETS[name]).parameters
    return {key: given.get(key, p.default) for key, p in parameters.items() if key not in _COMMON}


def make_plan(
    name: str, *, source: str, size: int, resize: str, quality: int = 0, options: Mapping[str, Any]
) -> Plan:
    """Plans a data set.

    Args:
      name: a key of DATASETS.
      source: where the images come from; what it may be depends on the data set.
      size: side of the stored images in pixels.
      resize: "squash" or "pad".
      quality: of the stored images as JPEG, 1 to 100; 0: PNG, which loses nothing.
      options: the data set's own options, by name.

    Raises:
      UsageError: an unknown name or option, or a value out of range.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; use one of {', '.join(sorted(DATASETS))}")
    if not 1 <= size <= MAX_SIZE:
        raise UsageError(f"size={size} is out of range; use 1 to {MAX_SIZE} pixels")
    if resize not in RESIZE_MODES:
        raise UsageError(f"unknown resize {resize!r}; use one of {', '.join(RESIZE_MODES)}")
    if not 0 <= quality <= 100:
        raise UsageError(f"quality={quality} is out of range; use 1 to 100 for JPEG, or 0 for PNG")
    known = [option for option in inspect.signature(DATASETS[name]).parameters if option not in _COMMON]
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}; its options are: {', '.join(known)}")
    plan = DATASETS[name](source=source, size=size, resize=resize, **options)
    return replace(plan, settings=f"{plan.settings}-q{quality}", quality=quality) if quality else plan
