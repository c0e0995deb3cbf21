"""Names in a manifest that mean no name, and names that mean the same."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from fairkd_jax.errors import UsageError

# Texts that programs write for a missing value, in lower case.
_SUSPECTS = {"na", "n/a", "nan", "none", "null", "unknown", "?", "-1"}


def check_missing(manifest: Path, what: str, cells: Sequence[str], names: Sequence[str]) -> None:
    """Checks that no cell holds a text that looks like a missing value.

    -1 is a value where the only other value is 1.

    Args:
      manifest: Path of the manifest, for the message.
      what: "label" or "group".
      cells: Cells of the column; "" for a missing value.
      names: Names that the user has listed, which are names whatever they look like.

    Raises:
      UsageError: A cell looks like a missing value.
    """
    found = set(cells) - {""}
    allowed = {*names, *(found if found == {"-1", "1"} else ())}
    for row, cell in enumerate(cells, 1):
        if cell.lower() in _SUSPECTS and cell not in allowed:
            fault = f"{manifest}, row {row}: the {what} {cell!r} looks like a missing value"
            if what == "label":
                raise UsageError(f"{fault}; remove the row, or list the name in data.manifest.class_names")
            raise UsageError(
                f"{fault}; set data.manifest.missing=('{cell}',) for an unknown group, or list the name in"
                " data.manifest.group_names"
            )


def warn_of_twins(option: str, names: Sequence[str]) -> None:
    """Warns of names that differ by case, blanks or Unicode form alone; each stays a name of its own.

    Args:
      option: "class_names" or "group_names".
      names: Names of the classes or groups.
    """
    forms: dict[str, list[str]] = {}
    for name in names:
        form = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        forms.setdefault(form, []).append(name)
    for twins in forms.values():
        if len(twins) > 1:
            shown = ", ".join(map(ascii, twins))
            logging.warning("%s: %s differ by case, blanks or Unicode form alone", option, shown)
