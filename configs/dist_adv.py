"""DIST with the adversary that removes the bias."""

from ml_collections import ConfigDict

from configs import dist


def get_config(preset: str = "") -> ConfigDict:
    config = dist.get_config(preset)
    config.objectives = (*config.objectives, "adversary")
    return config
