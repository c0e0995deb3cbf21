"""Conventional distillation of standardised logits (Sun et al. 2024)."""

from ml_collections import ConfigDict

from configs import ckd


def get_config(preset: str = "") -> ConfigDict:
    config = ckd.get_config(preset)
    config.ckd.standardize = True
    config.ckd.temperature = 2.0
    config.ckd.weight = 9.0
    return config
