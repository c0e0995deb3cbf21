"""Trains every combination of config values, as processes on this machine or on a Ray cluster.

fairkd-sweep --config rkd_adv[:WORD,...] --grid KEY=VALUE,VALUE,... [--grid ...]
             [--config.KEY=VALUE ...] [--workdir DIR] [--evaluate] [--probe] [--dry_run]
fairkd-sweep --summary DIR [--max_disparity 0.05]

Start the same command again to continue a sweep; the sweep then runs only the missing commands. The variable
RAY_ADDRESS names a cluster; without RAY_ADDRESS, the sweep runs on this machine. All machines of a cluster
must have the same environment and DIR at the same path.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from fairkd_jax import cli, program_flags
from fairkd_jax.configs.names import make_run_name
from fairkd_jax.errors import UsageError
from fairkd_jax.sweep.grid import parse_grid
from fairkd_jax.sweep.ray_runner import RayLauncher
from fairkd_jax.sweep.resources import parse_resources, select_environment
from fairkd_jax.user_paths import check_can_store, parse_path

if TYPE_CHECKING:
    from fairkd_jax.sweep.planned_runs import Command, PlannedRun

_CONFIG = program_flags.define_config_flag(
    "Config of all runs, with optional words: NAME[:WORD,...] or FILE.py[:WORD,...]."
)
_GRID = flags.DEFINE_multi_string(
    "grid",
    [],
    "Config key and the values to try, as KEY=VALUE,VALUE,...; a value that contains commas must stand in"
    " brackets. Repeat the flag for each key.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Folder for all runs of the sweep; by default runs/sweep-NAME, with the NAME of a run's folder.",
)
_EVALUATE = flags.DEFINE_bool(
    "evaluate", False, "Whether to evaluate each run on the validation split too, with confidence intervals."
)
_PROBE = flags.DEFINE_bool("probe", False, "Whether to fit probes that predict the group from each model.")
_CPUS = flags.DEFINE_integer(
    "cpus",
    0,
    "Number of CPU cores for each run; 0 takes all cores of a machine, or one beside accelerators.",
    lower_bound=0,
)
_GPUS = flags.DEFINE_float(
    "gpus",
    None,
    "Number of GPUs for each run, which may be a fraction; by default one where a machine has a GPU.",
    lower_bound=0.0,
)
_RESOURCES = flags.DEFINE_list(
    "resources", [], "Other Ray resources for each run, as NAME=NUMBER,...; for example TPU=4."
)
_PARALLEL = flags.DEFINE_integer(
    "parallel",
    0,
    "Largest number of runs at the same time; 0 starts as many runs as the machines have room for.",
    lower_bound=0,
)
_RETRIES = flags.DEFINE_integer(
    "retries",
    3,
    "Number of times to start a run again after it was killed or its machine was lost.",
    lower_bound=0,
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Whether to print the missing commands, one line for each run, and run nothing."
)
_SUMMARY = flags.DEFINE_string(
    "summary", "", "Folder of finished runs to collect in summary.csv and summary.parquet; trains nothing."
)
_MAX_DISPARITY = flags.DEFINE_float(
    "max_disparity",
    None,
    "Largest corrected disparity on validation that a method may have; --summary then chooses the most"
    " accurate method within this bound.",
)
_MARGIN = flags.DEFINE_float(
    "margin",
    0.01,
    "Validation accuracy that --summary may lose for a smaller corrected disparity; has no effect with"
    " --max_disparity.",
)


def make_config(overrides: Mapping[str, str]) -> ConfigDict:
    """Makes the config of --config with some overrides, in the same way as fairkd-train.

    Args:
      overrides: Text of the value by key.

    Returns:
      Config, not resolved.

    Raises:
      UsageError: A key is unknown, or a value has a wrong type.
    """
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    arguments = ["", f"--config={file}", *(f"--config.{key}={text}" for key, text in overrides.items())]
    values = flags.FlagValues()
    config = program_flags.define_config_flag("Config of a point.", values=values, arguments=arguments)
    try:
        values(arguments)
    except cli.FLAG_ERRORS as error:
        raise UsageError(f"--grid: {cli.format_flag_error(error)}") from None
    return config.value


def get_workdir(config_file: str) -> Path:
    """Returns --workdir; by default `runs/sweep-rkd_adv-utkface` for `configs/rkd_adv.py:utkface`."""
    return parse_path(_WORKDIR.value or f"runs/sweep-{make_run_name(config_file)}")


def main() -> None:
    """Prints a summary, prints the commands of a sweep, or runs the sweep."""
    if _SUMMARY.value:
        from fairkd_jax.evaluation.odd_files import blame_odd_evaluations
        from fairkd_jax.sweep.summary import write_summary

        folder = parse_path(_SUMMARY.value)
        with blame_odd_evaluations(folder):
            text = write_summary(folder, _MAX_DISPARITY.value, _MARGIN.value, cli.get_style())
        print(text)
        return
    if not flags.FLAGS["config"].present:
        raise UsageError("give --config and --grid, or --summary")
    import jax

    from fairkd_jax.sweep import planned_runs
    from fairkd_jax.sweep.schedule import run_sweep
    from fairkd_jax.sweep.status_table import StatusTable

    jax.config.update("jax_platforms", "cpu")  # leaves the accelerators to the runs
    program_flags.load_config(_CONFIG)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    fixed = config_flags.get_override_values(flags.FLAGS["config"])
    # The machines of a cluster may have data that this machine lacks.
    here = _DRY_RUN.value or not os.environ.get("RAY_ADDRESS")
    axes, workdir = parse_grid(_GRID.value), get_workdir(file)
    check_can_store(workdir)
    runs = planned_runs.plan_runs(make_config, axes, fixed, workdir, with_data=here)

    def list_commands(run: "PlannedRun") -> list["Command"]:
        return planned_runs.list_commands(run, file, validate=_EVALUATE.value, probe=_PROBE.value)

    lines, advice = planned_runs.format_dry_run(runs, list_commands)
    if _DRY_RUN.value or not lines:
        print(*lines, sep="\n", end="\n" * bool(lines))
        print(f"{cli.get_program_name()}: {advice}", file=sys.stderr)
        return
    resources = parse_resources(_RESOURCES.value)
    with RayLauncher(cpus=_CPUS.value, gpus=_GPUS.value, resources=resources) as launcher:
        environment = select_environment(launcher.run_resources, os.environ)
        run_sweep(
            runs,
            launcher,
            make_job=lambda run: planned_runs.make_job(run, list_commands(run), environment),
            retries=_RETRIES.value,
            parallel=_PARALLEL.value,
            table=StatusTable(),
        )


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main)
