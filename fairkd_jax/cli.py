"""What the command-line programs share: flags in, one line and an exit code where something is wrong."""

import os
import sys
from collections.abc import Callable
from logging import INFO, Formatter, LogRecord
from pathlib import Path

import jax
from absl import app, flags, logging

from fairkd_jax.errors import UsageError

USAGE_ERROR = 2


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs a program.

    A user's mistake ends it with one line on stderr and exit code 2. An exception with an `exit_code`
    ends it with its message and that code.
    """

    def guarded(argv: list[str]) -> None:
        handler = logging.get_absl_handler()
        handler.addFilter(_is_worth_reading)
        handler.setFormatter(Formatter("%(message)s"))
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]!r}; options start with --")
        try:
            main()
        except UsageError as error:
            fail(str(error))
        except RuntimeError as error:
            if not hasattr(error, "exit_code"):
                raise
            fail(str(error), error.exit_code)

    app.run(guarded, flags_parser=_parse)


def fail(message: str, code: int = USAGE_ERROR) -> None:
    """Prints one line on stderr and ends the program."""
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _is_worth_reading(record: LogRecord) -> bool:
    """Libraries tell each of their steps at the level of information."""
    return record.levelno > INFO or "fairkd_jax" in record.pathname


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; what a config file or an override raises is the user's to mend."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        fail(f"{message} (see --help)")
        raise


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX is told of another one."""
    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "fairkd_jax" / "jax"))
