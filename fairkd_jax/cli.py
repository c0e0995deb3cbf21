"""What the command-line programs share: flags in, one line and an exit code where something is wrong."""

import os
import sys
import traceback
from collections.abc import Callable
from logging import INFO, Formatter, LogRecord
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from fairkd_jax.errors import UsageError
from fairkd_jax.files import cache_folder, make_folder
from fairkd_jax.training import cluster

USAGE_ERROR = 2
OS_ERROR = 1
# What a config file, or an override of a key, may raise: anything that Python code can be wrong in.
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


def run(main: Callable[..., None], *, positional: bool = False) -> None:
    """Parses the flags and runs a program.

    With `positional` it is handed the list of the arguments that are no flags; without, these are a mistake.
    A user's mistake ends it with one line on stderr and exit code 2. An exception with an `exit_code`
    ends it with its message and that code.
    """

    def guarded(argv: list[str]) -> None:
        handler = logging.get_absl_handler()
        handler.addFilter(_is_worth_reading)
        handler.setFormatter(Formatter("%(message)s"))
        if len(argv) > 1 and not positional:
            fail(f"unexpected argument {argv[1]!r}; options start with --")
        try:
            main(*([argv[1:]] if positional else []))
        except UsageError as error:
            fail(str(error))
        except OSError as error:  # a full disk, a folder that cannot be written to
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}", OS_ERROR)
        except Exception as error:
            if isinstance(error, RuntimeError) and hasattr(error, "exit_code"):
                _say_mistake(str(error))  # all processes of a run come here together
                sys.exit(error.exit_code)
            _leave_others()
            raise

    if positional:
        flags.FLAGS.set_gnu_getopt()  # flags may stand behind such arguments
    app.run(guarded, flags_parser=_parse)


def fail(message: str, code: int = USAGE_ERROR) -> None:
    """Prints one line on stderr and ends the program."""
    _say_mistake(message)
    if jax.distributed.is_initialized():
        _end_alone(code)
    sys.exit(code)


def _say_mistake(message: str) -> None:
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)


def _leave_others() -> None:
    """Ends one of several processes after an error of its own, with its traceback."""
    if jax.distributed.is_initialized():
        traceback.print_exc()
        _end_alone(1)


def _end_alone(code: int) -> None:
    """Ends the process without waiting for the others, who wait for it, at JAX's last barrier."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_worth_reading(record: LogRecord) -> bool:
    """Libraries tell each of their steps at the level of information, this package what is worth reading."""
    return record.levelno > INFO or Path(record.pathname).is_relative_to(Path(__file__).parent)


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; what a config file or an override raises is the user's to mend."""
    if set(argv[1:]) & set(HELP):
        print(f"{sys.modules['__main__'].__doc__}{flags.FLAGS.main_module_help()}")
        print("The keys of --config, with their meaning, stand in configs/base.py.")
        sys.exit(0)
    # A program in scripts/, too, finds what the files in configs/ import of each other.
    sys.path.append(str(Path(__file__).parents[1]))
    try:
        return flags.FLAGS(argv)
    except FLAG_ERRORS as error:
        fail(f"{_in_short(error)} (see --help)")
        raise


def _in_short(error: Exception) -> str:
    """What a flag's parser complains of, without the wrapping that ml_collections puts around it."""
    message = " ".join(str(part) for part in error.args)
    if "Traceback" in message:  # of what the config file raised, which stands at its end
        message = message.strip().splitlines()[-1].partition("Error: ")[2]
    if isinstance(error, AttributeError | KeyError):
        message = f"unknown key {message}".replace("\\n", ". ").replace("\\'", "'").replace("'", "")
    return message


def load_config(holder: flags.FlagHolder) -> ConfigDict:
    """The config that a flag names.

    Raises:
      UsageError: the file does not exist or cannot be read as Python.
    """
    path = config_flags.get_config_filename(flags.FLAGS[holder.name]).partition(":")[0]
    if not Path(path).is_file():
        raise UsageError(f"there is no config file {path}; the project's own are in configs/")
    try:
        return holder.value.copy_and_resolve_references()
    except OSError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[-1].strip()
        raise UsageError(f"the config file {path} cannot be read: {reason}") from None


def define_cluster_flags() -> None:
    """The flags of a run over several processes."""
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where a run has several processes.")
    flags.DEFINE_integer("num_processes", 0, "How many these are.", lower_bound=0)
    flags.DEFINE_integer("process_id", -1, "Which one this is, from 0.", lower_bound=-1)
    flags.DEFINE_bool(
        "distributed",
        None,
        "Whether to look for other processes, as a TPU pod slice needs; by default where Slurm or"
        " TPU_WORKER_HOSTNAMES names several.",
    )


def say(text: str) -> None:
    """Prints a text; of several processes, one does."""
    if not jax.process_index():
        print(text)


def join_cluster() -> None:
    """Joins the other processes of this run; see `training.cluster`."""
    values = flags.FLAGS
    cluster.join(values.coordinator, values.num_processes, values.process_id, detect=values.distributed)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX is told of another one."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache_folder() / "jax"
    if make_folder(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))
    else:
        logging.warning(
            "Compiled programs cannot be kept in %s: every start will compile anew (XDG_CACHE_HOME or"
            " JAX_COMPILATION_CACHE_DIR may name another folder)",
            folder,
        )
