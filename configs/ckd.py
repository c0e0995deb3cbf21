"""Conventional distillation: the teacher's softened probabilities (Hinton et al. 2015)."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "ckd")
    config.cross_entropy.weight = 0.1
    return config
