"""Runs command-line programs: parses flags, and turns a user's mistake into one line and an exit code.

JAX is imported where it is used: `--help` and programs that read tables start without JAX.
"""

import argparse
import functools
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from logging import Formatter
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from absl import app, flags, logging

from fairkd_jax.data.preparation_plan import escape_unprintable
from fairkd_jax.errors import UsageError
from fairkd_jax.files import get_cache_folder, make_private_folder
from fairkd_jax.report.text_table import WIDE, Style
from fairkd_jax.run_log import is_worth_reading
from fairkd_jax.user_paths import parse_path

USAGE_ERROR = 2
OS_ERROR = 1
# Errors of an override.
FLAG_ERRORS = (
    flags.Error,
    AttributeError,
    ImportError,
    KeyError,
    NameError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)
HELP = ("--help", "-help", "-h", "--helpfull", "-?")
LIST = ("--list", "-list", "--list=true", "--list=True")


def print_lines(program: str, lines: Iterable[str]) -> int:
    """Prints the lines that some work yields, and a user's mistake in one line.

    Args:
      program: Name of the program in front of a mistake.
      lines: Generator whose steps do the work.

    Returns:
      The exit code: 0; 2 after a user's mistake, and 1 after an error of the system.
    """
    try:
        for line in lines:
            print(line, flush=True)
    except UsageError as error:
        print(f"{program}: {make_one_line(str(error))}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        print(f"{program}: {format_os_error(error)}", file=sys.stderr)
        return OS_ERROR
    return 0


class OneLineParser(argparse.ArgumentParser):
    """A parser of arguments whose errors are one line, as those of all programs."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and ends the program."""
        self.exit(USAGE_ERROR, f"{self.prog}: {make_one_line(message)} (see --help)\n")


def parse_path_argument(text: str) -> Path:
    """Returns the path that a command-line argument names; a `type` of `OneLineParser`.

    Args:
      text: Argument of the user.

    Raises:
      ArgumentTypeError: The path is refused; see `parse_path`.
    """
    try:
        return parse_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def format_os_error(error: OSError) -> str:
    """Formats an error of the system, such as a full disk, as one line that names the file."""
    where = f"{error.filename}: " if error.filename else ""
    return make_one_line(f"{where}{error.strerror or error}")


def make_one_line(message: str) -> str:
    """Returns a message as one line that any terminal can show.

    Args:
      message: Text that may hold what a user or a file has written.
    """
    return escape_unprintable(" ".join(message.split()))


def run(main: Callable[..., None], *, positional: bool = False) -> None:
    """Parses the flags and runs a program.

    A `UsageError` ends the program with one line on stderr and exit code 2, an `OSError` with one line and
    exit code 1. A `RuntimeError` with an attribute `exit_code` ends the program with its message and this
    code. Any other exception shows a traceback.

    Args:
      main: Function of the program. With `positional`, its argument is the list of all arguments that are not
        flags.
      positional: Whether the program accepts arguments that are not flags.
    """

    def run_main(argv: list[str]) -> None:
        handler = logging.get_absl_handler()
        handler.addFilter(is_worth_reading)
        handler.setFormatter(Formatter("%(message)s"))
        if len(argv) > 1 and not positional:
            fail(f"unexpected argument {argv[1]!r}; options must start with --")
        try:
            main(*([argv[1:]] if positional else []))
        except UsageError as error:
            fail(str(error))
        except OSError as error:  # such as a full disk, or a folder without write permission
            fail(format_os_error(error), OS_ERROR)
        except Exception as error:
            if isinstance(error, RuntimeError) and hasattr(error, "exit_code"):
                _print_error(str(error))  # all processes of a run reach this line together
                sys.exit(error.exit_code)
            _exit_if_distributed()
            raise

    if positional:
        flags.FLAGS.set_gnu_getopt()  # so that flags may follow other arguments
    app.run(run_main, flags_parser=functools.partial(_parse_flags, sys.modules[main.__module__]))


def fail(message: str, code: int = USAGE_ERROR) -> None:
    """Prints one line on stderr and ends the program.

    Args:
      message: Text that names the error and says how to correct the error.
      code: Exit code of the program.

    Raises:
      SystemExit: The process is the only process of its run. A process of several ends without an exception.
    """
    _print_error(message)
    if _is_distributed():
        _exit_without_barrier(code)
    sys.exit(code)


def get_program_name() -> str:
    """Returns the name by which the user has started this program: `fairkd-train` or `train.py`."""
    return Path(sys.argv[0]).name


def _print_error(message: str) -> None:
    print(f"{get_program_name()}: {make_one_line(message)}", file=sys.stderr)


def _exit_if_distributed() -> None:
    """Prints the traceback and ends this process at once where the run has several processes."""
    if _is_distributed():
        traceback.print_exc()
        _exit_without_barrier(1)


def _is_distributed() -> bool:
    """Returns whether this process has joined other processes; without JAX it has not."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _exit_without_barrier(code: int) -> None:
    """Ends this process without JAX's last barrier, where the other processes would wait for this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parse_flags(program: ModuleType, argv: list[str]) -> list[str]:
    """Parses the flags; an error of a config file or of an override ends the program with one line.

    Args:
      program: Module of the program, whose docstring and flags --help prints.
      argv: Name of the program, and its arguments.

    Returns:
      Name of the program, and the arguments that are not flags.
    """
    if set(argv[1:]) & set(HELP):
        text = f"{program.__doc__}{flags.FLAGS.module_help(program.__name__)}"
        if "config" in flags.FLAGS:
            text += "\nfairkd-train --list prints the configs, the keys of --config, and their meaning."
        _print_and_exit(text)
    if "list" in flags.FLAGS and set(argv[1:]) & set(LIST):
        from fairkd_jax.configs.listing import format_listing  # imports all models and objectives

        _print_and_exit(format_listing())
    # In a checkout, a user's config file may import configs/, also where the user is elsewhere.
    root = Path(__file__).parents[1]
    if (root / "configs").is_dir():
        sys.path.append(str(root))
    try:
        return flags.FLAGS(argv)
    except Exception as error:  # a config file is Python code, and can raise any exception
        usage = find_usage_error(error)
        fail(str(usage) if usage else f"{format_flag_error(error)} (see --help)")
        raise


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def find_usage_error(error: BaseException) -> UsageError | None:
    """Finds the first `UsageError` that led to an error of a flag, without the text around the message.

    Args:
      error: Error of a flag's parser.
    """
    cause, found = error.__context__, error if isinstance(error, UsageError) else None
    return (find_usage_error(cause) if cause else None) or found


def format_flag_error(error: Exception) -> str:
    """Formats the error of a flag's parser, without the text that ml_collections puts around the error.

    Args:
      error: Error of a flag's parser, see `FLAG_ERRORS`.
    """
    message = " ".join(str(part) for part in error.args)
    if not isinstance(error, FLAG_ERRORS):
        return f"the config file raised {type(error).__name__}: {message}"
    if absent := re.match(r"flag --(\w+)=None: ", message):
        example = " such as rkd_adv; fairkd-train --list prints all names" if absent[1] == "config" else ""
        return f"give --{absent[1]},{example}" if example else f"give --{absent[1]}"
    if "has no attribute" in message and "'get_config'" in message:
        return "the config file has no function get_config; see docs/your_own_method.md"
    if "No module named 'configs'" in message:
        message += "; import from fairkd_jax.configs instead"
    message = re.sub(r"\('(.+?)', '(.*?)'\)", r"\1 '\2'", message)
    if "Traceback" in message:  # the config file raised an exception: its message is at the end
        message = message.strip().splitlines()[-1].partition("Error: ")[2]
    if isinstance(error, AttributeError | KeyError):
        message = f"unknown key {message}".replace("\\n", ". ").replace("\\'", "'").replace("'", "")
    return message


def get_style() -> Style:
    """Returns the form of tables for where this program prints: of the terminal's width, or without limit."""
    if not sys.stdout.isatty():
        return WIDE
    is_bold = os.environ.get("TERM") not in (None, "dumb") and not os.environ.get("NO_COLOR")
    return Style(shutil.get_terminal_size().columns, is_bold)


def print_once(text: str) -> None:
    """Prints a text in process 0 of the run only."""
    import jax

    if not jax.process_index():
        print(text, flush=True)


def use_compilation_cache() -> None:
    """Makes JAX keep compiled programs in the user's cache folder, unless the user has set another folder."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = get_cache_folder() / "jax"
    if make_private_folder(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))
    else:
        logging.warning(
            "Compiled programs cannot be kept in %s, where this user alone must be able to write, so every"
            " start compiles again; name another folder with XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR",
            folder,
        )
