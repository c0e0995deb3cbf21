"""What is there instead of a path that is not: a name that looks the same, or the last folder that exists."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path


def explain_missing(path: Path) -> str:
    """Explains what is there instead of a path that does not exist.

    Args:
      path: The path.

    Returns:
      Phrase to follow the message that nothing is there; begins with a semicolon.
    """
    path = path.expanduser().absolute()
    if os.path.islink(path):
        return f"; it is a link to {os.readlink(path)}, which is not there"
    for wanted in dict.fromkeys((path, Path(str(path).replace("\\", "/")))):
        found = _find_twin(wanted)
        if os.path.exists(found):
            return f"; {found} is there, which differs in {_describe_difference(str(path), str(found))}"
    parent = next((folder for folder in path.parents if os.path.exists(folder)), path)
    return f"; of this path, only {parent} is there" if parent != path.parent else ""


def _find_twin(path: Path) -> Path:
    """Replaces each part of a path that is not there by a name in the same folder that looks the same."""
    found = Path(path.anchor)
    for part in path.parts[1:]:
        if not os.path.exists(found / part):
            try:
                twins = sorted(name for name in os.listdir(found) if _fold(name) == _fold(part))
            except OSError:
                return path
            part = next(iter(twins), part)
        found /= part
    return found


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


# What two paths can differ in that look the same, and the function that makes them equal in it.
_DIFFERENCES: dict[str, Callable[[str], str]] = {
    "/ for \\": lambda path: path.replace("\\", "/"),
    "the Unicode form of its letters (NFC, NFD)": lambda path: unicodedata.normalize("NFC", path),
    "blanks around a name": lambda path: "/".join(part.strip() for part in path.split("/")),
    "capital letters": str.casefold,
}


def _describe_difference(path: str, twin: str) -> str:
    """Names each difference without which two paths are still unequal after all others are gone."""
    found = []
    for name in _DIFFERENCES:
        texts = [path, twin]
        for other, simplify in _DIFFERENCES.items():
            if other != name:
                texts = [simplify(text) for text in texts]
        if texts[0] != texts[1]:
            found.append(name)
    return " and ".join(found)
