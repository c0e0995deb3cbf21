"""Conventional distillation with the adversary that removes the bias."""

from ml_collections import ConfigDict

from configs import ckd


def get_config(preset: str = "") -> ConfigDict:
    config = ckd.get_config(preset)
    config.objectives = (*config.objectives, "adversary")
    return config
