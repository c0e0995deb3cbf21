"""KD++: conventional distillation with the embedding turned to the class means (Wang et al. 2023)."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "ckd", "kdpp")
    config.ckd.weight = 1.0
    config.ckd.warmup_epochs = 2.0
    return config
