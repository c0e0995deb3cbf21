"""The order in which people expect names: numbers in names are compared by value."""

import re
from collections.abc import Iterable
from decimal import Decimal

# A minus or a plus is a sign at the start and behind "=", as in "lambda=-0.5"; elsewhere it joins words.
_NUMBER = re.compile(r"((?:(?<![^=])[-+])?\d+(?:\.\d+)?(?:e[-+]?\d{1,3}(?![0-9A-Za-z]))?)")


def sort_names(names: Iterable[str]) -> list[str]:
    """Sorts names so that 2 stands before 10, -1 before 1, and `lambda=0.25` before `lambda=0.5`.

    Args:
      names: Names in any order; equal names stay.
    """
    return sorted(names, key=make_sort_key)


def make_sort_key(name: str) -> tuple[list[str | Decimal], str]:
    """Returns the key by which `sort_names` sorts: texts and numbers in turn, and the name for equal numbers.

    Args:
      name: A name; 1, 01 and 1.0 are equal numbers, but different names.
    """
    parts = _NUMBER.split(name)  # each second part is a number
    return [Decimal(part) if place % 2 else part for place, part in enumerate(parts)], name
