"""Check that a config file of the user sets only keys that the project, or an objective, knows."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from fairkd_jax.configs.base import list_keys
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import OBJECTIVES

_MEMBERS = "population.weights."


def check_known_keys(config: Mapping[str, Any]) -> None:
    """Checks the names of all keys, as the command line does for `--config.KEY=VALUE`.

    A section with the name of an objective has the key `weight`, and the keyword arguments of the objective's
    factory.

    Args:
      config: Config that a file has made, as nested mappings.

    Raises:
      UsageError: A key is unknown, or a key of the default config is missing.
    """
    known = {key.name for key in list_keys()}
    for name, factory in OBJECTIVES.items():
        known |= {f"{name}.{key}" for key in ("weight", *inspect.signature(factory).parameters)}
        known.add(f"{_MEMBERS}{name}")
    found = set(_list_names(config))
    if unknown := sorted(found - known):
        close = difflib.get_close_matches(unknown[0], sorted(known - found) or sorted(known), n=1)
        hint = f"did you mean {close[0]}?" if close else "fairkd-train --list prints all keys"
        raise UsageError(f"the config file sets the unknown key {unknown[0]}; {hint}")
    if missing := sorted({key.name for key in list_keys()} - found):
        raise UsageError(
            f"the config file lacks the key {missing[0]}; start from base.get_config() of fairkd_jax.configs"
        )


def check_types(config: Mapping[str, Any]) -> None:
    """Checks the type of each value of a config file, where the file has switched off the check of its own.

    Args:
      config: Config that a file has made, as nested mappings.

    Raises:
      UsageError: A value has another type than the key's default.
    """
    for key in list_keys():
        value: Any = config
        for name in key.name.split("."):
            value = value[name]
        is_empty = isinstance(key.default, type)
        kind = key.default if is_empty else type(key.default)
        allowed = {float: (float, int), tuple: (tuple, list)}.get(kind, (kind,))
        if not (type(value) in allowed or (value is None and is_empty) or key.default is None):
            raise UsageError(
                f"the config file sets {key.name} to {str(value)[:80]!r}, a {type(value).__name__};"
                f" the key is a {kind.__name__}"
            )


def _list_names(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Lists the names of all keys; an empty section counts as a key."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _list_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
