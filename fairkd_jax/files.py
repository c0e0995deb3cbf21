"""Where files go, and how: written whole or not at all, under another name first and then renamed."""

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/fairkd_jax, or ~/.cache/fairkd_jax."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "fairkd_jax"
    try:
        return Path.home() / ".cache" / "fairkd_jax"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"fairkd_jax-{os.geteuid()}"


def make_folder(folder: Path, mode: int = 0o777) -> bool:
    """Makes a folder where there is none yet; whether files can be put into it."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = _temporary(path, ".tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:  # of the file that was asked for, not of one that nobody knows
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path, suffix: str) -> Path:
    """A name beside a file that no other process has, of this machine or another one."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{suffix}")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a compressed .npz file whole or not at all; arrays of objects are refused."""
    temporary = _temporary(path, ".tmp.npz")
    try:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
