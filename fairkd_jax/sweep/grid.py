"""A grid as text: its keys and values, the names of its points, and values as the command line takes them."""

import ast
import hashlib
import itertools
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.errors import UsageError

Texts = dict[str, str]  # key of the config -> its value, as in --config.KEY=VALUE
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_LONGEST_NAME = 150


def parse_grid(given: Sequence[str]) -> dict[str, list[str]]:
    """Reads `KEY=VALUE,VALUE,...` of each --grid.

    A value that has commas itself stands in brackets: `objectives=(cross_entropy,ckd),(cross_entropy,dkd)`.

    Raises:
      UsageError: a key or its values are missing, or a key is there twice.
    """
    grid: dict[str, list[str]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not (equals and key and values.strip()):
            raise UsageError(
                f"--grid {text}: give a key and its values, such as adversary.weight=0.0,0.5,2.0"
            )
        if key in grid:
            raise UsageError(f"--grid {key} is there twice; name all its values at once")
        grid[key] = [_without_brackets(value.strip()) for value in _split(values, text)]
        if not all(grid[key]):
            raise UsageError(f"--grid {text}: one of the values is empty")
    if not grid:
        raise UsageError("give at least one --grid, such as --grid seed=0,1,2")
    return grid


def _split(values: str, given: str) -> list[str]:
    """Splits at commas that stand in no brackets."""
    parts: list[str] = [""]
    depth: list[str] = []
    for letter in values:
        if letter == "," and not depth:
            parts.append("")
            continue
        if letter in _BRACKETS:
            depth.append(_BRACKETS[letter])
        elif letter in _BRACKETS.values() and (not depth or depth.pop() != letter):
            raise UsageError(f"--grid {given}: brackets do not match")
        parts[-1] += letter
    if depth:
        raise UsageError(f"--grid {given}: brackets do not match")
    return parts


def _without_brackets(value: str) -> str:
    """`(ckd,dkd)` as `ckd,dkd`, which the command line takes for two names; numbers keep their brackets."""
    if not (value.startswith("(") and value.endswith(")")):
        return value
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value[1:-1]
    return value


def points(grid: Mapping[str, Sequence[str]]) -> list[Texts]:
    """All combinations of the values; the last key changes fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def name_of(values: Mapping[str, Any]) -> str:
    """What a point and its folder are called: `adversary.weight=0.5,seed=1`.

    Args:
      values: by key, as they stand in the config, so that 1 and 1.0 of a weight are one.
    """
    texts = {
        key: "+".join(map(str, v)) if isinstance(v, tuple | list) else str(v) for key, v in values.items()
    }
    name = ",".join(f"{key}={text or 'empty'}" for key, text in texts.items())
    safe = re.sub(r"[^\w.,=+@-]", "_", name)
    if safe == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{safe[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def several(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def text_of(value: Any) -> str:
    """A value as `--config.KEY=` takes it."""
    if isinstance(value, tuple | list):
        names = [str(item) for item in value if isinstance(item, str)]
        if names and len(names) == len(value) and all(map(_is_plain_name, ",".join(names).split(","))):
            return ",".join(names)
        return repr(tuple(value))
    return str(value)


def _is_plain_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"student": {"dtype": x}} -> {"student.dtype": x}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def overrides(base: Mapping[str, Any], target: Mapping[str, Any], keep: Sequence[str] = ()) -> Texts:
    """What makes one config into another on the command line.

    Args:
      base: all keys of the config file.
      target: all keys of the wanted config.
      keep: keys that are named even where they are the same in both.

    Returns:
      By key the text of its value. A key that is to become empty takes its whole section with it, since the
      command line has no text for an empty one.
    """
    before, after = flat(base), flat(target)
    named = {key for key in keep if after[key] is not None}
    changed = [key for key in after if key in named or after[key] != before.get(key)]
    whole = {key.rpartition(".")[0] for key in changed if after[key] is None}
    texts: Texts = {}
    for key in changed:
        section = next((name for name in sorted(whole) if key.startswith(f"{name}.")), "")
        if section:
            texts[section] = repr(_at(target, section))
        else:
            texts[key] = text_of(after[key])
    return texts


def _at(tree: Mapping[str, Any], key: str) -> Any:
    found: Any = tree
    for part in key.split("."):
        found = found[part]
    return found
