"""Limits of the system under which a test runs."""

import contextlib
import resource


@contextlib.contextmanager
def files_no_larger_than(size):
    """A file that grows beyond so many bytes fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
