"""Decoupled distillation with the adversary that removes the bias."""

from ml_collections import ConfigDict

from configs import dkd


def get_config(preset: str = "") -> ConfigDict:
    config = dkd.get_config(preset)
    config.objectives = (*config.objectives, "adversary")
    return config
