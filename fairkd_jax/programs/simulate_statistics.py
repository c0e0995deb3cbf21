"""Checks intervals and tests of bias on simulated models of known bias.

fairkd-simulate [--config NAME[:WORD,...]] [--accuracy 0.65] [--trials 1000]
    [--table "small cells"] [--json FILE]

Without --config the program needs no data. It takes the classes and genders of 3,465 images of WIDER
Attribute. The table "small cells" has test sets of its own, with 5 to 40 images in a cell.
"""

import json
import sys
from typing import Any

import numpy as np
from absl import flags

from fairkd_jax import cli, program_flags
from fairkd_jax.data.preparation_plan import SPLITS
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text

_CONFIG = program_flags.define_config_flag(
    "Config, as NAME[:WORD,...] or FILE.py[:WORD,...], whose images are counted."
)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "Split of --config whose images are counted.")
_ACCURACY = flags.DEFINE_float("accuracy", 0.65, "Mean accuracy of the models.")
_TRIALS = flags.DEFINE_integer(
    "trials", 2000, "Number of simulated models, or pairs of models, for each line."
)
_DRAWS = flags.DEFINE_integer("draws", 1000, "Number of resamples for every interval and test.")
_SEED = flags.DEFINE_integer("seed", 0, "Random seed of the simulation.")
_TABLE = flags.DEFINE_multi_enum(
    "table", [], ("one model", "two models", "small cells"), "Table to compute; all tables by default."
)
_JSON = flags.DEFINE_string("json", "", "File to write all figures to, as JSON.")

Rows = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Checks the flags, runs the simulation and prints its tables."""
    output = program_flags.get_output_file(_JSON)
    if not 0.0 < _ACCURACY.value < 1.0:
        raise UsageError(f"--accuracy={_ACCURACY.value:g} must lie between 0 and 1")
    for name, flag, least in (("trials", _TRIALS, 1), ("draws", _DRAWS, 1), ("seed", _SEED, 0)):
        if flag.value < least:
            raise UsageError(f"--{name}={flag.value} must be at least {least}")
    from fairkd_jax.fairness.simulation import (
        TABLES,
        SimulationSettings,
        make_wider_counts,
        select_usable_counts,
        simulate,
    )

    sizes = select_usable_counts(_count_images() if flags.FLAGS["config"].present else make_wider_counts())
    if not sizes.size:
        raise UsageError("no class has two images of both groups; choose another --split or --config")
    setting = SimulationSettings(sizes, _ACCURACY.value, _TRIALS.value, _DRAWS.value, _SEED.value)
    tables: Rows = {}
    for table, row in simulate(setting, tables=_TABLE.value or TABLES):
        tables.setdefault(table, []).append(row)
        print(f"{table}: {_describe_row(row)}", file=sys.stderr, flush=True)
    if output:
        about = setting._asdict() | {"sizes": sizes.tolist()}
        about["draws"] = about.pop("num_resamples")  # the file keeps the name of the flag
        write_text(output, json.dumps({"setting": about} | tables, indent=1) + "\n")
    images = f"{sizes.sum():,} images in {sizes.shape[1]} classes, at {setting.accuracy:g} accuracy; "
    if set(tables) == {"small cells"}:  # which has test sets of its own
        images = ""
    print(f"{images}{setting.trials:,} trials a line, {setting.num_resamples:,} draws each")
    for name, rows in tables.items():
        print(f"\n{name}\n{_format_table(rows)}")


def _count_images() -> np.ndarray:
    """Returns the images of each group and class in the split of --config: int [2, C]."""
    from fairkd_jax.recipe.sections import parse_data
    from fairkd_jax.recipe.values import normalize
    from fairkd_jax.runs.dataset import count_split

    name, counts = count_split(parse_data(normalize(program_flags.load_config(_CONFIG)).data), _SPLIT.value)
    if len(counts) != 2:
        raise UsageError(f"{name} has {len(counts)} groups; only two can be simulated")
    return counts


def _describe_row(row: dict[str, Any]) -> str:
    """Describes the models of a row in words."""
    if "scenario" in row:
        return f"{row['scenario']}, {row['classes']} classes of {row['images']} images by group"
    return f"{row.get('arrangement', 'normal')} gaps, {row['mean_gap']:g} in the mean"


def _format_table(rows: list[dict[str, Any]]) -> str:
    """Formats rows as text: errors with their sign, shares without a sign."""
    signed = ("plain", "corrected", "d2", "shown")

    def format_cell(name: str, value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:{'+.4f' if name in signed else '.3f'}}"

    cells = [list(rows[0])] + [[format_cell(*item) for item in row.items()] for row in rows]
    widths = [max(7, *map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in cells)


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main)
