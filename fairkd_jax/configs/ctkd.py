"""Distillation at a temperature that is learnt against the student (Li et al. 2023)."""

from ml_collections import ConfigDict

from fairkd_jax.configs import base
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "ctkd")
    config.cross_entropy.weight = 0.1
    return config
