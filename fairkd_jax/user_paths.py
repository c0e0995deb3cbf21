"""Paths that a user gives: `~` is expanded, and names are refused with which no program could work."""

import os
import unicodedata
from pathlib import Path

from fairkd_jax.errors import UsageError

# The library of the checkpoints takes the first for patterns of names, and the others for buckets.
_PATTERN = "*?[\\"
_BUCKETS = ("gs", "s3", "az", "hf")
_LONGEST = 4096 - 512  # bytes: Linux allows 4096, and a name inside a checkpoint takes up to 300
_LINE_BREAKS = ("Cc", "Zl", "Zp")  # categories of characters


def parse_path(text: str | os.PathLike[str]) -> Path:
    """Returns the path that a user has written, with `~` expanded.

    Args:
      text: Path on a command line, in a config or in an environment variable.

    Raises:
      UsageError: The path has control characters or is no UTF-8, is an address, or begins with the `~` of an
        unknown user.
    """
    written = os.fspath(text)
    _check_characters(written)
    scheme, separator, _ = written.partition("://")
    if separator and scheme.isalnum():
        raise UsageError(f"{written} is an address, but files must lie on this machine; name a local path")
    path = Path(os.path.expanduser(written))
    if not str(path).startswith("~"):
        return path
    if written.startswith("~"):
        raise UsageError(f"{written}: the home folder of this user is not known; write the whole path")
    return path.absolute()  # ./~name: a later reader must not expand it


def check_can_store(folder: Path) -> None:
    """Checks that checkpoints below a folder can be read again.

    Args:
      folder: Folder of a run, or of several.

    Raises:
      UsageError: The library of the checkpoints would take the path for something else, or the path is too
        long.
    """
    path = folder.absolute()
    _check_characters(str(path))
    marks = [mark for mark in _PATTERN if mark in str(path)]
    marks += [f"/{name}:/" for name in _BUCKETS if f"{name}:" in path.parts]
    marks += [f"/{name}/ in front" for name in _BUCKETS if path.parts[1:2] == (name,)]
    if marks:
        raise UsageError(
            f"checkpoints cannot be kept in {path}, because of {' and '.join(marks)} in its name; choose"
            " another folder"
        )
    if len(os.fsencode(path)) > _LONGEST:
        raise UsageError(f"checkpoints cannot be kept in {path}: the path is too long; choose a shorter one")


def _check_characters(path: str) -> None:
    categories = {unicodedata.category(character) for character in path}
    if categories & set(_LINE_BREAKS):
        raise UsageError(f"{path!r} has control characters, such as a line break; choose another name")
    if "Cs" in categories:
        raise UsageError(f"{path!r} is no UTF-8; choose another name")
