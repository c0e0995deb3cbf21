"""Conventional distillation: the teacher's softened probabilities (Hinton et al. 2015)."""

from ml_collections import ConfigDict

from fairkd_jax.configs import base
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "ckd")
    config.cross_entropy.weight = 0.1
    return config
