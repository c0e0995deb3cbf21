"""Text of a grid: keys and values, names of points, and config values in the form of the command line."""

import ast
import hashlib
import itertools
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.errors import UsageError
from fairkd_jax.runs.folder import flatten

Overrides = dict[str, str]  # key of the config -> text of the value, as in --config.KEY=VALUE
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_MAX_NAME_LENGTH = 150  # characters


def parse_grid(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Parses the `KEY=VALUE,VALUE,...` text of each --grid.

    A value that contains commas must stand in brackets:
    `objectives=(cross_entropy,ckd),(cross_entropy,dkd)`.

    Args:
      arguments: Text of each --grid flag.

    Returns:
      Texts of the values by key, in the order of the flags.

    Raises:
      UsageError: A key or its values are missing, or two --grid flags have the same key.
    """
    grid: dict[str, list[str]] = {}
    for text in arguments:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not (equals and key and values.strip()):
            raise UsageError(
                f"--grid {text}: give a key and its values, such as adversary.weight=0.0,0.5,2.0"
            )
        if key in grid:
            raise UsageError(f"--grid {key} is there twice; name all values of the key in a single --grid")
        grid[key] = [_strip_brackets(value.strip()) for value in _split_at_commas(values, text)]
        if not all(grid[key]):
            raise UsageError(f"--grid {text}: one of the values is empty; remove the extra comma")
    if not grid:
        raise UsageError("give at least one --grid, such as --grid seed=0,1,2")
    return grid


def _split_at_commas(values: str, argument: str) -> list[str]:
    """Splits a text at each comma outside brackets."""
    parts: list[str] = [""]
    depth: list[str] = []
    for letter in values:
        if letter == "," and not depth:
            parts.append("")
            continue
        if letter in _BRACKETS:
            depth.append(_BRACKETS[letter])
        elif letter in _BRACKETS.values() and (not depth or depth.pop() != letter):
            raise UsageError(f"--grid {argument}: brackets do not match; close each bracket")
        parts[-1] += letter
    if depth:
        raise UsageError(f"--grid {argument}: brackets do not match; close each bracket")
    return parts


def _strip_brackets(value: str) -> str:
    """Returns `(ckd,dkd)` as `ckd,dkd`, which the command line reads as two names; numbers keep brackets."""
    if not (value.startswith("(") and value.endswith(")")):
        return value
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value[1:-1]
    return value


def list_points(grid: Mapping[str, Sequence[str]]) -> list[Overrides]:
    """Lists all combinations of the values; the last key changes fastest.

    Args:
      grid: Texts of the values by key.

    Returns:
      Text of one value by key, for each point.
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def make_point_name(values: Mapping[str, Any]) -> str:
    """Makes the name of a point and of its folder, such as `adversary.weight=0.5,seed=1`.

    Args:
      values: Values of the resolved config by key, so that a weight of 1 and of 1.0 give the same name.

    Returns:
      Name of at most 150 characters that are safe in a path. A name with other characters, or a longer name,
      ends in a hash of the full name.
    """
    texts = {
        key: "+".join(map(str, v)) if isinstance(v, tuple | list) else str(v) for key, v in values.items()
    }
    name = ",".join(f"{key}={text or 'empty'}" for key, text in texts.items())
    safe = re.sub(r"[^\w.,=+@-]", "_", name)
    if safe == name and len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{safe[: _MAX_NAME_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def format_count(number: int, noun: str) -> str:
    """Formats a number and its noun: `1 run`, `2 runs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def format_value(value: Any) -> str:
    """Formats a config value as the text that `--config.KEY=` accepts."""
    if isinstance(value, tuple | list):
        names = [str(item) for item in value if isinstance(item, str)]
        if names and len(names) == len(value) and all(map(_is_plain_name, ",".join(names).split(","))):
            return ",".join(names)
        return repr(tuple(value))
    return str(value)


def _is_plain_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def find_overrides(base: Mapping[str, Any], target: Mapping[str, Any], keep: Sequence[str] = ()) -> Overrides:
    """Finds the overrides that turn one config into another on the command line.

    Args:
      base: Nested dict with all keys of the config file.
      target: Nested dict with all keys of the wanted config.
      keep: Keys that the result names even where both configs have the same value.

    Returns:
      Text of the value by key. Where the target has None for a key, the result overrides the key's whole
      section, since the command line has no text for None.
    """
    before, after = flatten(base), flatten(target)
    named = {key for key in keep if after[key] is not None}
    changed = [key for key in after if key in named or after[key] != before.get(key)]
    sections = {key.rpartition(".")[0] for key in changed if after[key] is None}
    overrides: Overrides = {}
    for key in changed:
        section = next((name for name in sorted(sections) if key.startswith(f"{name}.")), "")
        if section:
            overrides[section] = repr(_get_value(target, section))
        else:
            overrides[key] = format_value(after[key])
    return overrides


def _get_value(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    return value
