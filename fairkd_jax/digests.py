"""SHA-256 of what a run leaves behind: written last, and checked at every reading.

A file of arrays or a JSON file holds the hash of its content. A folder has a file `SHA256SUMS` with the
hashes of all its other files, in the format of the program `sha256sum`. What an earlier version wrote has no
hash; such a file is read all the same, and one line says that it was not checked.
"""

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.files import get_cache_folder, parse_json, save_arrays, write_text

SUMS = "SHA256SUMS"
_KEY = "sha256"  # name of the array with the hash, in a file of arrays


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a compressed .npz file with the hash of its content, completely or not at all.

    Args:
      path: File to write or replace.
      arrays: Arrays by name, of any dtype but object.

    Raises:
      ValueError: An array has the dtype object.
      OSError: The file cannot be written.
    """
    converted = {name: np.asarray(array) for name, array in arrays.items()}
    save_arrays(path, converted | {_KEY: np.array(_hash_arrays(converted))})


def read_arrays(path: Path, advice: str) -> dict[str, np.ndarray]:
    """Reads a .npz file and checks its hash.

    Args:
      path: File of `write_arrays`, or of an earlier version without a hash.
      advice: Imperative sentence for the user of a damaged file.

    Returns:
      Arrays by name.

    Raises:
      UsageError: The file is damaged.
      OSError: The file cannot be opened.
    """
    content = path.read_bytes()
    with reading(str(path), advice):
        if not content.startswith(b"PK"):  # NumPy would take it for a pickle, and say how to load one
            raise ValueError("it is no .npz file")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        expected = arrays.pop(_KEY, None)
        # The name stands twice in the file. A damaged list of contents does not make it an earlier version's.
        is_earlier = expected is None and f"{_KEY}.npy".encode() not in content
        if is_earlier:
            _say_unchecked(path)
        elif str(expected) != _hash_arrays(arrays):
            raise ValueError("its bytes have changed since they were written")
    return arrays


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file with the hash of its content, completely or not at all.

    Args:
      path: File to write or replace.
      content: Values by name, ready for JSON.

    Raises:
      OSError: The file cannot be written.
    """
    write_text(path, json.dumps({_KEY: _hash_json(content), **content}, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file and checks its hash.

    Args:
      path: File of `write_json`, or of an earlier version without a hash.

    Returns:
      Values by name.

    Raises:
      ValueError: The file holds no JSON object, or its content has changed since it was written.
      OSError: The file cannot be read.
    """
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    expected = content.pop(_KEY, None)
    if expected is None:
        _say_unchecked(path)
    elif expected != _hash_json(content):
        raise ValueError(f"changed since it was written; to keep a change of yours, take its line {_KEY} out")
    return content


def has_hash(path: Path) -> bool:
    """Returns whether a JSON file holds the hash of its content, right or wrong.

    Args:
      path: A file.

    Raises:
      OSError: The file cannot be read.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and _KEY in content


def write_sums(folder: Path) -> None:
    """Writes the hashes of all files below a folder.

    Args:
      folder: Folder whose files are complete.

    Raises:
      OSError: A file cannot be read, or the hashes cannot be written.
    """
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in _list_files(folder)]
    write_text(folder / SUMS, "".join(lines))


def check_sums(folder: Path, advice: str, *, below: str = "") -> None:
    """Checks the hashes of the files of a folder. Files that were added later are not looked at.

    Args:
      folder: Folder of `write_sums`, or of an earlier version without hashes.
      advice: Imperative sentence for the user of a damaged folder.
      below: Name of a folder in it: no files of other folders are checked; "" for all files.

    Raises:
      UsageError: A file is damaged or missing.
    """
    expected = _read_sums(folder, advice)
    if expected is None:
        return
    with reading(str(folder), advice):
        for name, digest in expected.items():
            if not below or "/" not in name or name.startswith(f"{below}/"):
                _check_file(folder / name, digest, advice)


def check_changed_files(folder: Path, advice: str, *, again: bool = False) -> int | None:
    """Checks the hashes of the files whose size or time differs from those of their last check.

    A folder of prepared images is large, and is opened at every start. What was checked is remembered in the
    user's cache folder. Files that were added to the folder are not looked at.

    Args:
      folder: Folder of `write_sums`, or of an earlier version without hashes.
      advice: Imperative sentence for the user of a damaged folder.
      again: Whether to check all files, whatever was checked before.

    Returns:
      Number of files that were read; None for a folder without hashes.

    Raises:
      UsageError: A file is damaged or missing.
    """
    expected = _read_sums(folder, advice)
    if expected is None:
        return None
    checked = {} if again else _read_checked(folder)
    states = {name: _get_state(folder / name, digest) for name, digest in expected.items()}
    changed = [name for name, state in states.items() if not state or checked.get(name) != state]
    with reading(str(folder), advice):
        for name in changed:
            _check_file(folder / name, expected[name], advice)
    if changed:
        remember_checked(folder)
    return len(changed)


def remember_checked(folder: Path) -> None:
    """Remembers sizes and times of the files of a folder, which are known to be those of its hashes."""
    expected = _read_sums(folder, "") or {}
    states = {name: _get_state(folder / name, digest) for name, digest in expected.items()}
    record = _find_record(folder)
    with contextlib.suppress(OSError):  # without a record, the files are checked at the next start too
        record.parent.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps(states) + "\n")


def _read_checked(folder: Path) -> dict[str, Any]:
    """Reads what `remember_checked` has written; empty where there is nothing."""
    try:
        found = parse_json(_find_record(folder).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _find_record(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return get_cache_folder() / "checked" / f"{name}.json"


def _get_state(path: Path, digest: str) -> list[Any]:
    """Returns size, time and expected hash of a file; an empty list for a file that is not there."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, digest]


def _read_sums(folder: Path, advice: str) -> dict[str, str] | None:
    """Reads the hashes of a folder by the names of its files; None where an earlier version wrote none."""
    if not (folder / SUMS).exists():
        _say_unchecked(folder)
        return None
    with reading(str(folder / SUMS), advice):
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        if not lines:  # the machine stopped before they were on the disk
            _say_unchecked(folder)
            return None
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _check_file(path: Path, expected: str, advice: str) -> None:
    """Compares a file with its hash."""
    if not path.is_file():
        raise UsageError(f"{path} is missing; {advice}")
    if hash_file(path) != expected:
        raise UsageError(f"{path} has changed since it was written; {advice}")


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list_files(folder: Path) -> list[Path]:
    """Lists all files below a folder but its hashes."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)


def _hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of names, dtypes, shapes and bytes."""
    content = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _hash_json(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of values by name, whatever their order and the blanks between them."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _say_unchecked(path: Path) -> None:
    logging.info("%s: not checked, since it was written without a hash", path)
