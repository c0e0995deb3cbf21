"""Computes the gaps and differences that a test set can detect, before any training.

The program also prints the gap that an unbiased model shows by chance.

fairkd-power --config rkd_adv:wider [--accuracy 0.65] [--discordant 0.2]
    [--split test]
"""

import numpy as np
from absl import flags

from fairkd_jax import cli, program_flags
from fairkd_jax.data.preparation_plan import SPLITS
from fairkd_jax.errors import UsageError

_CONFIG = program_flags.define_config_flag("Config, as NAME[:WORD,...] or FILE.py[:WORD,...].")
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "Split whose images are counted.")
_ACCURACY = flags.DEFINE_float("accuracy", 0.65, "Accuracy of the models, the same in every class and group.")
_DISCORDANT = flags.DEFINE_float(
    "discordant", 0.2, "Share of images that only one of two models classifies correctly."
)
_POWER = flags.DEFINE_float("power", 0.8, "Probability with which a test must detect an effect.")
_LEVEL = flags.DEFINE_float("level", 0.05, "Significance level of the tests.")
flags.mark_flag_as_required("config")


def main() -> None:
    """Checks the flags, then computes and prints the power analysis."""
    for name, flag in (("accuracy", _ACCURACY), ("power", _POWER), ("level", _LEVEL)):
        if not 0.0 < flag.value < 1.0:
            raise UsageError(f"--{name}={flag.value:g} must lie between 0 and 1")
    most = 2.0 * min(_ACCURACY.value, 1.0 - _ACCURACY.value)
    if not 0.0 < _DISCORDANT.value <= most:
        raise UsageError(f"--discordant={_DISCORDANT.value:g} must be above 0, and at most {most:g}")
    from fairkd_jax.fairness.power import analyze_power
    from fairkd_jax.recipe.sections import parse_data
    from fairkd_jax.recipe.values import normalize
    from fairkd_jax.runs.dataset import count_split

    name, counts = count_split(parse_data(normalize(program_flags.load_config(_CONFIG)).data), _SPLIT.value)
    found = analyze_power(
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


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main)
