"""The lock of a run's folder, which a single process of a machine holds."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fairkd_jax.errors import UsageError


@contextlib.contextmanager
def lock_folder(workdir: Path) -> Iterator[None]:
    """Keeps other processes of this machine from training in the folder at the same time.

    Args:
      workdir: The run's folder; made where it does not exist, and removed where it stays empty.

    Raises:
      UsageError: Another process is training there, or a file of the folder cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        folder = os.open(workdir, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UsageError(
                f"another process is training in {workdir}; wait for its end, or choose another --workdir"
            ) from None
        finally:
            os.close(folder)
            if not any(workdir.iterdir()):  # the run failed before it wrote a file
                workdir.rmdir()
    except OSError as error:
        if not str(error.filename).startswith(str(workdir)):
            raise
        raise UsageError(f"cannot write to {error.filename}: {error.strerror}") from None
