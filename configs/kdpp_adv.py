"""KD++ with the adversary that removes the bias."""

from ml_collections import ConfigDict

from configs import kdpp


def get_config(preset: str = "") -> ConfigDict:
    config = kdpp.get_config(preset)
    config.objectives = (*config.objectives, "adversary")
    return config
