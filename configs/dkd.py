"""Decoupled distillation: the label's probability and the others' shares apart (Zhao et al. 2022)."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "dkd")
    config.dkd.warmup_epochs = 2.0
    return config
