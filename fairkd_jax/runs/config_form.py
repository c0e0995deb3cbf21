"""The form of a run's config: the type and range of each value that readers of a run use.

Nothing here imports JAX.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_length(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 2**31


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_names(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def _is_classes(value: Any) -> bool:
    return _is_names(value) and bool(value)


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_counts(value: Any) -> bool:
    return _is_section(value) and all(_is_whole(count) and count >= 0 for count in value.values())


def _is_texts(value: Any) -> bool:
    return _is_section(value) and all(map(_is_text, value.values()))


# Keys of a model; an empty value is one that the model chooses, or refuses, itself.
_MODEL: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("architecture", "dtype", "pretrained", "head", "checkpoint"), _is_text),
    **dict.fromkeys(("frozen_norm", "rematerialize", "group_heads"), _is_flag),
    **dict.fromkeys(("dropout_rate", "stochastic_depth_rate", "norm_epsilon", "norm_momentum"), _is_number),
}
# Key of a run's config, with dots, and what its value must be. A section stands before its keys.
_FORM: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("student", "teacher", "optimizer", "data", "augment", "best", "finetune"), _is_section),
    "population": _is_section,
    "seed": _is_whole,
    "batch_size": lambda value: _is_count(value) and value < 2**31,
    "epochs": _is_length,
    "objectives": _is_classes,
    **dict.fromkeys(("data.name", "data.source", "data.directory", "data.resize"), _is_text),
    **dict.fromkeys(("data.cache", "data.control"), _is_text),
    **dict.fromkeys(("data.seed", "data.quality"), _is_whole),
    **dict.fromkeys(("data.size", "data.image_size"), lambda value: _is_count(value) and value < 2**16),
    **dict.fromkeys(("data.balance_groups", "data.allow_duplicates"), _is_flag),
    **dict.fromkeys(("data.max_bad_fraction", "data.max_file_mib"), _is_number),
    **dict.fromkeys(
        ("augment.crop_scale", "augment.brightness", "augment.contrast", "augment.saturation"), _is_number
    ),
    "augment.flip": _is_flag,
}
_DATA_FORM: dict[str, Callable[[Any], bool]] = {
    "dataset": _is_text,
    "class_names": _is_classes,
    "group_names": _is_classes,
    "num_examples": _is_counts,
    "digests": _is_texts,
    "teacher": _is_section,
    "restarts": lambda value: _is_list(value) and all(map(_is_count, value)),
}


def check_form(
    config: Mapping[str, Any], data_info: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]
) -> None:
    """Checks the values in the file of a run, as far as they are there.

    Args:
      config: The config.
      data_info: The description of the data.
      methods: The descriptions of the objectives.

    Raises:
      ValueError: A value has another type, or is out of range; the message names the key.
    """
    _check_values(config, _FORM)
    _check_values(data_info, _DATA_FORM)
    for section in ("student", "teacher"):
        chosen = {key: value for key, value in config[section].items() if value is not None}
        _check_values(chosen, _MODEL, f"{section}.")
    if not _is_section(config["data"].get(config["data"].get("name", ""), {})):
        raise ValueError(f"data.{config['data']['name']} is no section")
    for name in config["objectives"]:
        if not _is_section(own := config.get(name, {})):
            raise ValueError(f"{name} is no section")
        _check_values(own, {"weight": _is_number}, f"{name}.")
        method = methods.get(name, {})
        _check_values(method, {"label": _is_text, "debiases": _is_flag, "influence": _is_text}, f"{name}.")


def _check_values(
    section: Mapping[str, Any], form: Mapping[str, Callable[[Any], bool]], prefix: str = ""
) -> None:
    for name, holds in form.items():
        place: Any = section
        for key in name.split("."):
            if key not in place:
                break
            place = place[key]
        else:
            if not holds(place):
                raise ValueError(f"{prefix}{name} is {str(place)[:40]!r}")
