"""DIST: how the teacher's probabilities correlate within images and within classes (Huang et al. 2022)."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "dist")
    return config
