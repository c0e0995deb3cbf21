"""The one exception that means "the user can mend this"."""

import contextlib
from collections.abc import Iterator


class UsageError(ValueError):
    """A mistake in what the user asked for or supplied.

    Its message is one line that names the fault and says what to do. The command-line programs print
    that line and exit with code 2; everything else that is raised is a defect and shows a traceback.
    """


@contextlib.contextmanager
def reading(what: str, advice: str) -> Iterator[None]:
    """Says in one line what a library raises when it reads damaged files.

    Args:
      what: what is read, with its path.
      advice: what to do where it is damaged.

    Raises:
      UsageError: something was raised.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        reason = text.encode("unicode_escape").decode()[:120] or type(error).__name__
        raise UsageError(f"{what} cannot be read ({reason}); {advice}") from error
