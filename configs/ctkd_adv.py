"""Distillation at a learnt temperature with the adversary that removes the bias."""

from ml_collections import ConfigDict

from configs import ctkd


def get_config(preset: str = "") -> ConfigDict:
    config = ctkd.get_config(preset)
    config.objectives = (*config.objectives, "adversary")
    return config
