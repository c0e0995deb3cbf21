"""Relational distillation: distances and angles between embeddings (Park et al. 2019)."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "rkd_distance", "rkd_angle")
    return config
