"""Distillation at a temperature that is learnt against the student (Li et al. 2023)."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "ctkd")
    config.cross_entropy.weight = 0.1
    return config
