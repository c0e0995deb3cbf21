"""Distillation of standardised logits with the adversary that removes the bias."""

from ml_collections import ConfigDict

from configs import lskd


def get_config(preset: str = "") -> ConfigDict:
    config = lskd.get_config(preset)
    config.objectives = (*config.objectives, "adversary")
    return config
