"""The lock of a run's folder, which a single process of a machine holds."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fairkd_jax.errors import UsageError, writing


@contextlib.contextmanager
def lock_folder(workdir: Path) -> Iterator[None]:
    """Keeps other processes of this machine from training in the folder at the same time.

    Args:
      workdir: The run's folder; made where it does not exist, and removed where it stays empty.

    Raises:
      UsageError: Another process is training there, or the path leads through a file.
      StorageError: A file of the folder cannot be written.
    """
    try:
        folder = _lock(workdir)
        try:
            yield
        finally:
            # Only the holder removes the folder, and before the lock ends: nobody else can hold it then.
            with contextlib.suppress(OSError):
                if not any(workdir.iterdir()):  # the run failed before it wrote a file
                    workdir.rmdir()
            os.close(folder)
    except OSError as error:
        if not str(error.filename).startswith(str(workdir)):
            raise
        with writing(f"write to {error.filename}", "make room there, or choose another --workdir"):
            raise


def _lock(workdir: Path) -> int:
    """Makes the folder and takes its lock.

    Args:
      workdir: The run's folder.

    Returns:
      Descriptor of the folder, which holds the lock until it is closed.

    Raises:
      UsageError: Another process holds the lock.
    """
    while True:
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            folder = os.open(workdir, os.O_RDONLY)
        except FileNotFoundError:  # the last holder has removed the folder since
            continue
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(folder, workdir):
                return folder
        except BlockingIOError:
            os.close(folder)
            raise UsageError(
                f"another process is training in {workdir}; wait for its end, or choose another --workdir"
            ) from None
        os.close(folder)  # the last holder has removed the folder between our opening and our lock


def _is_same(folder: int, workdir: Path) -> bool:
    """Returns whether a descriptor is of the folder that a path names now."""
    try:
        return os.path.samestat(os.fstat(folder), os.stat(workdir))
    except FileNotFoundError:
        return False
