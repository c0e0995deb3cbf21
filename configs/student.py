"""The student without a teacher, from labels alone."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy",)
    return config
