"""Writes files completely or not at all: a file has a temporary name until all bytes are there."""

import atexit
import contextlib
import functools
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.leftovers import make_mark, remove_abandoned
from fairkd_jax.user_paths import parse_path


def get_cache_folder() -> Path:
    """Returns the folder for files that can be made again.

    Returns:
      $XDG_CACHE_HOME/fairkd_jax; else `get_home_cache_folder()`.

    Raises:
      UsageError: $XDG_CACHE_HOME names no path that can be used.
    """
    if os.environ.get("XDG_CACHE_HOME"):
        return parse_path(os.environ["XDG_CACHE_HOME"]).absolute() / "fairkd_jax"
    return get_home_cache_folder()


def get_home_cache_folder() -> Path:
    """Returns ~/.cache/fairkd_jax; without a home folder, a folder among the system's temporary files."""
    try:
        return Path.home() / ".cache" / "fairkd_jax"
    except RuntimeError:  # the user has no home folder
        return _make_temporary_cache()


@functools.cache
def _make_temporary_cache() -> Path:
    """Makes a folder that serves all programs of this user; a new one for this process if others own that."""
    folder = Path(tempfile.gettempdir()) / f"fairkd_jax-{os.geteuid()}"
    if make_private_folder(folder) and stat.S_ISDIR(folder.lstat().st_mode):  # no link of somebody else
        return folder
    own = Path(tempfile.mkdtemp(prefix="fairkd_jax-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def make_private_folder(folder: Path) -> bool:
    """Makes a folder for compiled programs, which whoever may write there could replace by others.

    Args:
      folder: Folder to make, with its parents, where there is none yet.

    Returns:
      Whether the folder exists, belongs to this user, and nobody else can write there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
        if about.st_uid != os.geteuid() or about.st_mode & stat.S_IWOTH:
            return False
        if about.st_mode & stat.S_IWGRP:  # made by an earlier version, with the user's umask
            folder.chmod(0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes to a file completely or not at all.

    Args:
      path: File to write or replace.
      content: All bytes of the file.

    Raises:
      OSError: The file cannot be written; names `path`.
    """
    temporary = _make_temporary_path(path, ".tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:  # the user knows the path, not the temporary name
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        remove_file(temporary)


def remove_file(path: Path) -> None:
    """Removes a file that may not be there; its removal must not hide the error that led to it."""
    with contextlib.suppress(OSError):
        path.unlink()


def _make_temporary_path(path: Path, suffix: str) -> Path:
    """Makes a path in the same folder that no other process uses, on this machine or another.

    Removes what killed processes have left of the same file.
    """
    before = f".{path.name}."
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(path.parent) if entry.name.startswith(before)]
        remove_abandoned(path.with_name(name) for name in names if name.endswith((".tmp", ".tmp.npz")))
    return path.with_name(f"{before}{make_mark()}{suffix}")


def write_text(path: Path, text: str) -> None:
    """Writes text to a file in UTF-8, completely or not at all.

    Args:
      path: File to write or replace.
      text: All text of the file.

    Raises:
      OSError: The file cannot be written; names `path`.
    """
    write_bytes(path, text.encode("utf-8"))


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a compressed .npz file completely or not at all.

    Args:
      path: File to write or replace.
      arrays: Arrays by name, of any dtype but object.

    Raises:
      ValueError: An array has the dtype object.
      OSError: The file cannot be written; names `path`.
    """
    temporary = _make_temporary_path(path, ".tmp.npz")
    try:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)
    except OSError as error:  # as in `write_bytes`
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        remove_file(temporary)


def parse_json(text: str) -> Any:
    """Parses JSON from a file that somebody else may have written.

    Args:
      text: Content of the file.

    Raises:
      ValueError: The text is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def make_jsonable(value: Any) -> Any:
    """Returns a value with None for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): make_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
