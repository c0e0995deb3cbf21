"""Errors that end a program with one line: those that the user can correct, and those of the system."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# What libraries say in their own kinds of errors where the system refuses to write.
_REFUSALS = tuple(
    os.strerror(code)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
)
_WITH_ENV = Path(__file__).parents[1] / "scripts" / "with_env.py"


class UsageError(ValueError):
    """Error in the user's command, config or data.

    The message is one line that names the error and says how to correct the error. The command-line programs
    print this line and exit with code 2. Every other exception is a defect of the project and shows a
    traceback.
    """


class StorageError(OSError):
    """The system cannot keep a file: the disk is full, or a permission is missing.

    The message is one line. The command-line programs print this line and exit with code 1.
    """


class NotPreparedError(UsageError):
    """Data are not prepared, and the caller does not allow their preparation."""


class MissingExtraError(UsageError):
    """A library of an extra is not installed."""

    def __init__(self, what: str, extra: str, error: ImportError) -> None:
        """Makes the message.

        Args:
          what: Noun phrase for what the user has asked for, with its verb: "a sweep needs".
          extra: Name of the extra in pyproject.toml.
          error: Error of the import.
        """
        # In a checkout, the environment that with_env.py has made holds no pip.
        if _WITH_ENV.exists():
            advice = f"start the command with `python3 scripts/with_env.py --extra {extra}`"
        else:
            advice = f"install it with `pip install 'fairkd_jax[{extra}]'`"
        super().__init__(f"{what} the extra `{extra}` ({error}); {advice}")


@contextlib.contextmanager
def reading(what: str, advice: str) -> Iterator[None]:
    """Turns any exception from a library that reads a damaged file into a `UsageError` of one line.

    Args:
      what: Noun phrase for the file, with its path.
      advice: Imperative sentence for the user of a damaged file.

    Yields:
      None, for the `with` block that reads the file.

    Raises:
      UsageError: The block raised an exception.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        reason = text.encode("unicode_escape").decode()[:120] or type(error).__name__
        raise UsageError(f"{what} cannot be read ({reason}); {advice}") from error


@contextlib.contextmanager
def writing(what: str, advice: str) -> Iterator[None]:
    """Turns an error of the system, also in the words of a library, into an error of one line.

    Args:
      what: Verb phrase for the work, with the path: "save a checkpoint in runs/a".
      advice: Imperative sentence for the user.

    Yields:
      None, for the `with` block that writes.

    Raises:
      UsageError: The path leads through a file, or is too long.
      StorageError: The disk is full, or a permission is missing.
    """
    try:
        yield
    except (UsageError, StorageError):
        raise
    except OSError as error:
        is_mistake = isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError)
        kind = UsageError if is_mistake or error.errno == errno.ENAMETOOLONG else StorageError
        raise kind(f"cannot {what}: {error.strerror or error}; {advice}") from error
    except Exception as error:
        reason = next((words for words in _REFUSALS if words in str(error)), "")
        if not reason:
            raise
        raise StorageError(f"cannot {what}: {reason}; {advice}") from error
