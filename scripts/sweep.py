"""Many runs at once: every combination of some keys' values, as processes on this machine or a Ray cluster.

python scripts/sweep.py --config configs/rkd_adv.py[:PRESET] --grid KEY=VALUE,VALUE,... [--grid ...]
                        [--config.KEY=VALUE ...] [--workdir DIR] [--evaluate] [--probe] [--dry_run]
python scripts/sweep.py --summary DIR [--max_disparity 0.05]

The same command again does what is missing. It runs on this machine, or on the cluster of RAY_ADDRESS, whose
machines have this repository, and DIR, in the same place.
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from fairkd_jax import cli
from fairkd_jax.errors import UsageError
from fairkd_jax.sweep import plan, summary
from fairkd_jax.sweep.grid import parse_grid
from fairkd_jax.sweep.ray_runner import RayLauncher
from fairkd_jax.sweep.resources import environment_of, parse_resources
from fairkd_jax.sweep.schedule import run_all
from fairkd_jax.sweep.states import Board

ROOT = Path(__file__).parents[1]
_CONFIG = config_flags.DEFINE_config_file("config", None, "File[:preset].", lock_config=True)
_GRID = flags.DEFINE_multi_string("grid", [], "KEY=VALUE,VALUE,...; a value with commas stands in brackets.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Of all runs; runs/sweep-<config>[-<preset>] by default.")
_EVALUATE = flags.DEFINE_bool("evaluate", False, "Whether to score on validation too, with intervals.")
_PROBE = flags.DEFINE_bool("probe", False, "Whether to ask how well the group can be read from each model.")
_CPUS = flags.DEFINE_integer(
    "cpus",
    0,
    "Of a run; 0: all of a machine, so one run at a time, or 1 beside accelerators.",
    lower_bound=0,
)
_GPUS = flags.DEFINE_float("gpus", None, "Of a run; 1 by default where there are some.", lower_bound=0.0)
_RESOURCES = flags.DEFINE_list("resources", [], "Others of Ray, of a run, such as TPU=4.")
_PARALLEL = flags.DEFINE_integer("parallel", 0, "Runs at once; 0: what the machines can.", lower_bound=0)
_RETRIES = flags.DEFINE_integer("retries", 3, "Further starts of a run that is killed.", lower_bound=0)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Whether to print the commands, one a line, and run nothing.")
_SUMMARY = flags.DEFINE_string("summary", "", "A folder whose runs to gather in summary.csv and .parquet.")
_MAX_DISPARITY = flags.DEFINE_float("max_disparity", None, "For the choice, of the corrected one.")
_MARGIN = flags.DEFINE_float("margin", 0.01, "For the choice without it: accuracy that may be lost.")


def config_with(texts: Mapping[str, str]) -> ConfigDict:
    """The config of the file with some keys changed, read as train.py reads it."""
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    arguments = ["", f"--config={file}", *(f"--config.{key}={text}" for key, text in texts.items())]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", None, lock_config=True, flag_values=values, sys_argv=arguments
    )
    try:
        values(arguments)
    except cli.FLAG_ERRORS as error:
        reason = " ".join(map(str, error.args))
        if isinstance(error, AttributeError | KeyError):
            reason = f"unknown key {reason}".replace("\\n", ". ").replace("\\'", "").replace("'", "")
        raise UsageError(f"--grid: {reason}") from None
    return config.value


def workdir(config_file: str) -> Path:
    """`runs/sweep-rkd_adv-utkface` for `--config configs/rkd_adv.py:utkface`, where none is given."""
    path, _, preset = config_file.partition(":")
    default = Path("runs", "-".join(filter(None, ("sweep", Path(path).stem, preset))))
    return Path(_WORKDIR.value) if _WORKDIR.value else default


def main() -> None:
    if _SUMMARY.value:
        print(summary.summarize(Path(_SUMMARY.value), _MAX_DISPARITY.value, _MARGIN.value))
        return
    if not flags.FLAGS["config"].present:
        raise UsageError("give --config and --grid, or --summary")
    jax.config.update("jax_platforms", "cpu")  # accelerators are for the runs
    cli.load_config(_CONFIG)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    fixed = config_flags.get_override_values(flags.FLAGS["config"])
    runs = plan.plan(config_with, parse_grid(_GRID.value), fixed, workdir(file))

    def commands_of(run: plan.Run) -> list[plan.Command]:
        return plan.commands_of(run, file, validate=_EVALUATE.value, probe=_PROBE.value)

    lines, advice = plan.dry_run(runs, commands_of, ROOT)
    if _DRY_RUN.value or not lines:
        print(*lines, sep="\n", end="\n" * bool(lines))
        print(f"sweep.py: {advice}", file=sys.stderr)
        return
    resources = parse_resources(_RESOURCES.value)
    with RayLauncher(cpus=_CPUS.value, gpus=_GPUS.value, resources=resources) as launcher:
        environment = environment_of(launcher.asked, os.environ)
        run_all(
            runs,
            launcher,
            job_of=lambda run: plan.job_of(run, commands_of(run), ROOT, environment),
            retries=_RETRIES.value,
            parallel=_PARALLEL.value,
            board=Board(),
        )


if __name__ == "__main__":
    cli.run(main)
