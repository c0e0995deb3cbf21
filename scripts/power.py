"""What a test set can show, before anyone trains: gaps by chance, and what gaps and differences are found.

python scripts/power.py --config configs/rkd_adv.py:wider [--accuracy 0.65] [--discordant 0.2] [--split test]
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import numpy as np
from absl import flags
from ml_collections import config_flags

from fairkd_jax import cli
from fairkd_jax.data.plan import SPLITS
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness.power import power_of
from fairkd_jax.training import resolved
from fairkd_jax.training.experiment import split_counts

_CONFIG = config_flags.DEFINE_config_file("config", None, "File[:preset].", lock_config=True)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "Which images.")
_ACCURACY = flags.DEFINE_float("accuracy", 0.65, "Of the models, the same in every class and group.")
_DISCORDANT = flags.DEFINE_float(
    "discordant", 0.2, "Share of images that one of two models alone recognises."
)
_POWER = flags.DEFINE_float("power", 0.8, "Probability with which something is to be found.")
_LEVEL = flags.DEFINE_float("level", 0.05, "Of the tests.")
flags.mark_flag_as_required("config")


def main() -> None:
    for name, flag in (("accuracy", _ACCURACY), ("power", _POWER), ("level", _LEVEL)):
        if not 0.0 < flag.value < 1.0:
            raise UsageError(f"--{name}={flag.value:g} must lie between 0 and 1")
    most = 2.0 * min(_ACCURACY.value, 1.0 - _ACCURACY.value)
    if not 0.0 < _DISCORDANT.value <= most:
        raise UsageError(f"--discordant={_DISCORDANT.value:g} must be above 0, and at most {most:g}")
    name, counts = split_counts(resolved(cli.load_config(_CONFIG)), _SPLIT.value)
    found = power_of(
        counts,
        recall=_ACCURACY.value,
        discordant=_DISCORDANT.value,
        power=_POWER.value,
        level=_LEVEL.value,
    )
    print(
        f"{name}, {_SPLIT.value}: {counts.sum():,} images of {counts.shape[0]} known groups in"
        f" {counts.shape[1]} classes, at {_ACCURACY.value:g} accuracy"
    )
    if np.isnan(found.unbiased_mean):
        print("no class has two groups to compare")
        return
    print(
        "mean absolute disparity that an unbiased model shows by chance:"
        f" {found.unbiased_mean:.4f} on average, above {found.unbiased_high:.4f} in one test set of twenty"
    )
    gap = f"{found.detectable_gap:.4f}" if np.isfinite(found.detectable_gap) else "none, however large,"
    print(f"of one model, a true disparity of {gap} is found with {_POWER.value:.0%} power")
    print(
        f"between two models that differ on {_DISCORDANT.value:.0%} of the images, a difference of"
        f" {found.detectable_difference:.4f} is found with {_POWER.value:.0%} power"
    )


if __name__ == "__main__":
    cli.run(main)
