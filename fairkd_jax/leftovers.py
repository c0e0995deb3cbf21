"""Temporary files and folders of killed programs, which the next program removes.

A temporary name says which process has made it. What a process of this machine has left is removed once the
process is gone; what a process of another machine, or an earlier version, has left is removed after a day.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

_STALE_SECONDS = 24 * 3600
_MARK = re.compile(r"([0-9a-f]{8})-([0-9]+)-[0-9a-f]{16}")


def make_mark() -> str:
    """Makes a part of a temporary name, which says what process has made it and which no other uses."""
    return f"{_describe_machine()}-{os.getpid()}-{secrets.token_hex(8)}"


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Removes files and folders whose processes are gone.

    Args:
      paths: Temporary files and folders, whose names hold a mark, or none if an earlier version made them.
    """
    for path in paths:
        with contextlib.suppress(OSError):  # another process removes it too, or this user must not
            if _is_abandoned(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_abandoned(path: Path) -> bool:
    mark = _MARK.search(path.name)
    if mark is None or mark[1] != _describe_machine():
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    try:
        os.kill(int(mark[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        return False
    return False


def _describe_machine() -> str:
    """Returns a hash of the machine and of the container, within which a process has a number of its own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{os.uname().nodename} {space}".encode()).hexdigest()[:8]
