"""Writes files completely or not at all: a file has a temporary name until all bytes are there."""

import json
import math
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.user_paths import parse_path


def get_cache_folder() -> Path:
    """Returns the folder for files that can be made again.

    Returns:
      $XDG_CACHE_HOME/fairkd_jax; else ~/.cache/fairkd_jax; else, for a user without a home folder, a folder
      among the temporary files of the system.

    Raises:
      UsageError: $XDG_CACHE_HOME names no path that can be used.
    """
    if os.environ.get("XDG_CACHE_HOME"):
        return parse_path(os.environ["XDG_CACHE_HOME"]).absolute() / "fairkd_jax"
    try:
        return Path.home() / ".cache" / "fairkd_jax"
    except RuntimeError:  # the user has no home folder
        return Path(tempfile.gettempdir()) / f"fairkd_jax-{os.geteuid()}"


def make_folder(folder: Path, mode: int = 0o777) -> bool:
    """Makes a folder where there is none yet.

    Args:
      folder: Folder to make, with its parents.
      mode: Permissions of a new folder.

    Returns:
      Whether the folder exists and files can be written there.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
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
        temporary.unlink(missing_ok=True)


def _make_temporary_path(path: Path, suffix: str) -> Path:
    """Makes a path in the same folder that no other process uses, on this machine or another."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{suffix}")


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
      OSError: The file cannot be written.
    """
    temporary = _make_temporary_path(path, ".tmp.npz")
    try:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
