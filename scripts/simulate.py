"""Whether intervals and tests of bias keep what they promise: models of known bias, simulated.

python scripts/simulate.py [--config FILE[:preset]] [--accuracy 0.65] [--trials 1000] [--json FILE]

Without --config it takes the classes and genders of 3,465 images of WIDER Attribute, and needs no data.
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from fairkd_jax import cli
from fairkd_jax.data.plan import SPLITS
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness.simulation import Setting, simulate, usable_counts, wider_counts
from fairkd_jax.files import write_text
from fairkd_jax.training import resolved
from fairkd_jax.training.experiment import split_counts

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File[:preset] whose images are counted.", lock_config=True
)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "Which images of --config.")
_ACCURACY = flags.DEFINE_float("accuracy", 0.65, "Of the models.")
_TRIALS = flags.DEFINE_integer("trials", 1000, "Models, or pairs of models, for each line.")
_DRAWS = flags.DEFINE_integer("draws", 1000, "Of every interval and test.")
_SEED = flags.DEFINE_integer("seed", 0, "Of it all.")
_JSON = flags.DEFINE_string("json", "", "A file for all figures.")

Rows = dict[str, list[dict[str, Any]]]


def main() -> None:
    output = Path(_JSON.value) if _JSON.value else None
    if output and (output.is_dir() or not output.parent.is_dir()):
        raise UsageError(f"--json={output} is no file in an existing folder; name another one")
    if not 0.0 < _ACCURACY.value < 1.0:
        raise UsageError(f"--accuracy={_ACCURACY.value:g} must lie between 0 and 1")
    for name, flag, least in (("trials", _TRIALS, 1), ("draws", _DRAWS, 1), ("seed", _SEED, 0)):
        if flag.value < least:
            raise UsageError(f"--{name}={flag.value} must be at least {least}")
    sizes = usable_counts(_counts() if flags.FLAGS["config"].present else wider_counts())
    if not sizes.size:
        raise UsageError("no class has two images of both groups")
    setting = Setting(sizes, _ACCURACY.value, _TRIALS.value, _DRAWS.value, _SEED.value)
    tables: Rows = {}
    for table, row in simulate(setting):
        tables.setdefault(table, []).append(row)
        shown = f"{row.get('arrangement', 'normal')} gaps, {row['mean_gap']:g} in the mean"
        print(f"{table}: {shown}", file=sys.stderr, flush=True)
    if output:
        about = setting._asdict() | {"sizes": sizes.tolist()}
        write_text(output, json.dumps({"setting": about} | tables, indent=1) + "\n")
    print(
        f"{sizes.sum():,} images in {sizes.shape[1]} classes, at {setting.accuracy:g} accuracy;"
        f" {setting.trials:,} trials a line, {setting.draws:,} draws each"
    )
    for name, rows in tables.items():
        print(f"\n{name}\n{_text(rows)}")


def _counts() -> np.ndarray:
    name, counts = split_counts(resolved(cli.load_config(_CONFIG)), _SPLIT.value)
    if len(counts) != 2:
        raise UsageError(f"{name} has {len(counts)} groups; only two can be simulated")
    return counts


def _text(rows: list[dict[str, Any]]) -> str:
    """Errors with their sign, shares without."""
    signed = ("plain", "corrected", "d2", "shown")

    def cell(name: str, value: Any) -> str:
        text = value if isinstance(value, str) else f"{value:{'+.4f' if name in signed else '.3f'}}"
        return text.rjust(max(len(name), 7))

    return "\n".join(
        ["  ".join(name.rjust(max(len(name), 7)) for name in rows[0])]
        + ["  ".join(cell(*item) for item in row.items()) for row in rows]
    )


if __name__ == "__main__":
    cli.run(main)
