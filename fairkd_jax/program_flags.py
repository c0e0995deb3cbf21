"""Flags that several programs share, and the meaning of their values.

JAX is imported where it is used: `--help` and programs that read tables start without JAX.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fairkd_jax.configs.names import FOLDER, find_file
from fairkd_jax.errors import UsageError
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.user_paths import parse_path

flags.disclaim_key_flags()  # the flags that a function here defines belong to the program, also in --help


class _ConfigParser(flags.ArgumentParser):
    """Parser of a config flag: a name of the project's configs stands for its file."""

    def __init__(self, parser: flags.ArgumentParser) -> None:
        """Takes the parser of a flag with the path of a file."""
        super().__init__()
        self._parser = parser

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config for NAME[:WORDS], for FILE.py[:WORDS], or for the folder of a run."""
        if Path(argument).is_dir():
            return _read_config_of_run(Path(argument))
        path = find_file(argument)
        folder = str(Path(path.partition(":")[0]).absolute().parent)
        is_own = Path(folder) != FOLDER
        if is_own and folder not in sys.path:
            sys.path.append(folder)  # the file may import a module that lies beside the file
        config = self._execute(path)
        if not isinstance(config, ConfigDict):
            raise UsageError(f"get_config of {argument} must return a ConfigDict, not {config!r}")
        if is_own:
            from fairkd_jax.configs.known_keys import check_known_keys, check_types  # imports JAX

            check_known_keys(config.to_dict())
            check_types(config.to_dict())
        return config

    def _execute(self, path: str) -> Any:
        """Returns what the function of the file returns; the parser keeps an `OSError` for a later reader."""
        try:
            config = self._parser.parse(path)
        except Exception:
            raise
        except BaseException as error:  # sys.exit in the file, or an exception of its own
            raise UsageError(f"the config file {path} raised {error!r}; correct the file") from None
        kept = getattr(config, "__dict__", {}).get("_error")
        if isinstance(kept, OSError):
            reason = str(kept.__cause__ or kept).strip().splitlines()[-1].strip()
            raise UsageError(f"the config file {path} cannot be read ({reason}); correct the file")
        return config

    def flag_type(self) -> str:
        """Returns the type for help texts."""
        return "config"


def _read_config_of_run(folder: Path) -> ConfigDict:
    """Reads the config of a run, as its training got it."""
    from fairkd_jax.recipe.sections import make_tuples  # imports JAX
    from fairkd_jax.runs.folder import read_run_config

    def convert(section: Mapping[str, Any]) -> dict[str, Any]:
        inner = {key: convert(value) for key, value in section.items() if isinstance(value, Mapping)}
        return make_tuples(section) | inner

    return ConfigDict(convert(read_run_config(folder).config), type_safe=False)


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command line in which --config is spelled out.

    A run goes on with its run without debiasing, where it has one.

    Args:
      arguments: Arguments without the name of the program.

    Raises:
      UsageError: The folder to go on with does not exist.
    """
    expanded = list(arguments)
    if expanded and not expanded[0].startswith("-"):
        expanded[0] = f"--config={expanded[0]}"
    for place, argument in enumerate(expanded):
        name, equals, folder = argument.partition("=")
        if name in ("--resume", "-resume") and (equals or place + 1 < len(expanded)):
            end = place + 1 + (not equals)
            folder = folder if equals else expanded[place + 1]
            path = parse_path(folder)
            if not path.is_dir():
                absent = f"is not there{explain_missing(path)}"
                what = "is no folder" if path.exists() else absent
                raise UsageError(f"--resume {folder} {what}; name the folder of a run")
            if any(other.lstrip("-").partition("=")[0] == "workdir" for other in expanded):
                raise UsageError("--resume names the folder of the run already; leave --workdir out")
            expanded[place:end] = [f"--config={folder}", f"--workdir={folder}"]
            names = {other.lstrip("-").partition("=")[0] for other in expanded}
            if RunFolder(RunFolder(path).baseline).is_run() and not {"baseline", "nobaseline"} & names:
                expanded.append("--baseline")
            break
    return expanded


def define_config_flag(
    meaning: str, *, values: flags.FlagValues = flags.FLAGS, arguments: Sequence[str] | None = None
) -> flags.FlagHolder:
    """Defines the flag `--config`, with the overrides `--config.KEY=VALUE`.

    Args:
      meaning: Help text, with the form of the value.
      values: Flags that the new flag joins.
      arguments: Program name and arguments with the overrides; None reads `sys.argv`.

    Returns:
      Holder of the flag, see `load_config`.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None, meaning, lock_config=True, flag_values=values, sys_argv=arguments
    )
    values["config"].parser = _ConfigParser(values["config"].parser)
    return holder


def load_config(holder: flags.FlagHolder) -> ConfigDict:
    """Loads the config that a flag names, with the overrides of the command line.

    Args:
      holder: Flag of a config file.

    Returns:
      Copy of the config, without references between its keys.

    Raises:
      UsageError: The file cannot be read.
    """
    path = config_flags.get_config_filename(flags.FLAGS[holder.name]).partition(":")[0]
    try:
        return holder.value.copy_and_resolve_references()
    except OSError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[-1].strip()
        raise UsageError(f"the config file {path} cannot be read ({reason}); correct the file") from None


def get_run_folder(arguments: Sequence[str], holder: flags.FlagHolder) -> Path:
    """Returns the folder of the run that a program reads.

    Args:
      arguments: Arguments of the program that are not flags: the folder, or none.
      holder: Flag that names the folder otherwise.

    Raises:
      UsageError: No folder is named, or several.
    """
    named = [*arguments, *([holder.value] if holder.value else [])]
    if len(named) != 1:
        given = f"{len(named)} are named ({', '.join(named)})" if named else "none is named"
        raise UsageError(
            f"one run is needed, but {given}; write the folder of the run, or --{holder.name} RUN"
        )
    return parse_path(named[0])


def get_output_file(holder: flags.FlagHolder) -> Path | None:
    """Returns the file that a flag names for a program's results; None where the flag is empty.

    Args:
      holder: Flag with the path of the file.

    Raises:
      UsageError: The path is a folder, or its folder does not exist.
    """
    if not holder.value:
        return None
    path = parse_path(holder.value)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--{holder.name}={path} is not a file in an existing folder; name another file")
    return path


def define_cluster_flags() -> None:
    """Defines the flags of a run with several processes."""
    flags.DEFINE_string(
        "coordinator",
        "",
        "Address of process 0, as HOST:PORT, for a run with several processes; needs --num_processes and"
        " --process_id.",
    )
    flags.DEFINE_integer(
        "num_processes", 0, "Number of processes of the run; needs --coordinator.", lower_bound=0
    )
    flags.DEFINE_integer(
        "process_id", -1, "Index of this process, from 0; needs --coordinator.", lower_bound=-1
    )
    flags.DEFINE_bool(
        "distributed",
        None,
        "Whether to find the other processes of the run automatically, as a TPU pod slice needs; by default"
        " true where Slurm or TPU_WORKER_HOSTNAMES names several processes.",
    )


def join_cluster() -> None:
    """Joins the other processes of this run, as the flags say.

    Raises:
      UsageError: The flags contradict each other, or the other processes do not answer.
    """
    from fairkd_jax import distributed

    values = flags.FLAGS
    distributed.join_processes(
        values.coordinator, values.num_processes, values.process_id, detect=values.distributed
    )
