"""SHA-256 of the files of a source, each read once for its path, size and time of the last change."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fairkd_jax.data.preparation_progress import PreparationProgress
from fairkd_jax.digests import hash_file
from fairkd_jax.files import get_cache_folder, parse_json, write_text


def hash_files(paths: Sequence[str | Path], source: Path) -> list[str]:
    """Returns the SHA-256 of files. What was read before is remembered in the user's cache folder.

    Args:
      paths: Absolute paths of files.
      source: Path of the folder, archive or manifest that the files belong to.

    Returns:
      64 hexadecimal digits for each file; "" for a file that cannot be read.
    """
    names = [os.fspath(path) for path in paths]
    known = _read_record(source)
    states = {name: _get_state(name) for name in names}
    new = [name for name, state in states.items() if state and known.get(name, [])[:2] != state]
    if new:
        progress = PreparationProgress(f"reading {source.name}")
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for done, (name, digest) in enumerate(zip(new, pool.map(_hash, new), strict=True), 1):
                    known[name] = [*states[name], digest]
                    progress.update(done, 0)
        finally:
            progress.close()
        _write_record(source, {name: known[name] for name in states if known.get(name, [""])[-1]})
    return [known[name][-1] if states[name] else "" for name in names]


def forget_hashes(source: Path) -> None:
    """Forgets the hashes of the files of a source, so that the next call of `hash_files` reads all files.

    Args:
      source: Path of the folder, archive or manifest.
    """
    _find_record(source).unlink(missing_ok=True)


def _hash(name: str) -> str:
    try:
        return hash_file(Path(name))
    except OSError:
        return ""


def _get_state(name: str) -> list[int]:
    """Returns size and time of a file; an empty list for a file that is not there."""
    try:
        found = os.stat(name)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _find_record(source: Path) -> Path:
    name = hashlib.sha256(os.fsencode(source.absolute())).hexdigest()[:16]
    return get_cache_folder() / "hashed" / f"{name}.json"


def _read_record(source: Path) -> dict[str, list]:
    """Reads size, time and hash of each file by its path; empty where there is no record."""
    try:
        found = parse_json(_find_record(source).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: state for name, state in found.items() if _is_state(state)}


def _is_state(state: object) -> bool:
    """Returns whether a value of a record is a size, a time and a hash."""
    if not (isinstance(state, list) and len(state) == 3):
        return False
    size, changed, digest = state
    return isinstance(size, int) and isinstance(changed, int) and isinstance(digest, str)


def _write_record(source: Path, known: dict[str, list]) -> None:
    path = _find_record(source)
    with contextlib.suppress(OSError):  # without a record, all files are read again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known) + "\n")
