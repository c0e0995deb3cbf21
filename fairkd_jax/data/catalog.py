"""The table of data sets, with the options of each data set."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fairkd_jax.data.digits.digits_plan import plan_digits
from fairkd_jax.data.images import RESIZE_MODES
from fairkd_jax.data.manifest.manifest_plan import plan_manifest
from fairkd_jax.data.preparation_plan import DEFAULT_MAX_FILE_BYTES, PreparationPlan
from fairkd_jax.data.utkface.utkface_plan import plan_utkface
from fairkd_jax.data.wider_attribute.rules import RENAMED_SPLIT_RULES
from fairkd_jax.data.wider_attribute.wider_attribute_plan import plan_wider_attribute
from fairkd_jax.errors import UsageError

DATASETS: dict[str, Callable[..., PreparationPlan]] = {
    "digits": plan_digits,
    "manifest": plan_manifest,
    "utkface": plan_utkface,
    "wider_attribute": plan_wider_attribute,
}
MAX_SIZE = 4096
MAX_FILE_MIB = 1024
_COMMON = ("source", "size", "resize")
# Data set -> option -> {earlier value: present value}.
_RENAMED_VALUES = {"wider_attribute": {"split_rule": RENAMED_SPLIT_RULES}}


def normalize_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a data set with each renamed value replaced by its present name.

    Two mappings that mean the same data are equal after this call. An unknown data set, option or value stays
    unchanged.

    Args:
      name: Name of the data set.
      options: Options of the data set, by name, as written in a config or on a command line.
    """
    renamed = _RENAMED_VALUES.get(name, {})
    return {
        key: renamed[key].get(value, value) if key in renamed and isinstance(value, str) else value
        for key, value in options.items()
    }


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the normalized value of every option of a data set: the given value, or the default.

    Args:
      name: Key of DATASETS.
      options: Given options, by name. Names that are not options of this data set are ignored.
    """
    parameters = inspect.signature(DATASETS[name]).parameters
    normalized = normalize_options(name, options)
    return {key: normalized.get(key, p.default) for key, p in parameters.items() if key not in _COMMON}


def make_plan(
    name: str,
    *,
    source: str,
    size: int,
    resize: str,
    quality: int = 0,
    max_file_mib: float = DEFAULT_MAX_FILE_BYTES / 2**20,
    options: Mapping[str, Any],
) -> PreparationPlan:
    """Makes the preparation plan of a data set.

    Args:
      name: Key of DATASETS.
      source: Path of the images. Each data set accepts its own kinds of path.
      size: Side of the stored images in pixels.
      resize: "squash" or "pad".
      quality: JPEG quality of the stored images, 1 to 100. 0 stores PNG, which is lossless.
      max_file_mib: Largest size of an image file in MiB; a larger file is skipped.
      options: The data set's own options, by name.

    Returns:
      The plan. Nothing is decoded or written yet.

    Raises:
      UsageError: A name or an option is unknown, or a value is out of range.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; use one of {', '.join(sorted(DATASETS))}")
    if not 1 <= size <= MAX_SIZE:
        raise UsageError(f"size={size} is out of range; use 1 to {MAX_SIZE} pixels")
    if resize not in RESIZE_MODES:
        raise UsageError(f"unknown resize {resize!r}; use one of {', '.join(RESIZE_MODES)}")
    if not 0 <= quality <= 100:
        raise UsageError(f"quality={quality} is out of range; use 1 to 100 for JPEG, or 0 for PNG")
    if not 0 < max_file_mib <= MAX_FILE_MIB:
        raise UsageError(
            f"max_file_mib={max_file_mib:g} is out of range; use more than 0, up to {MAX_FILE_MIB}"
        )
    known = [option for option in inspect.signature(DATASETS[name]).parameters if option not in _COMMON]
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}; its options are: {', '.join(known)}")
    plan = DATASETS[name](source=source, size=size, resize=resize, **normalize_options(name, options))
    max_file_bytes = int(max_file_mib * 2**20)
    settings = plan.settings + (f"-q{quality}" if quality else "")
    if max_file_bytes != DEFAULT_MAX_FILE_BYTES and plan.reads_files:
        settings += f"-max{max_file_bytes}"
    return replace(plan, settings=settings, quality=quality, max_file_bytes=max_file_bytes)
