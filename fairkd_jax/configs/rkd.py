"""Relational distillation: distances and angles between embeddings (Park et al. 2019)."""

from ml_collections import ConfigDict

from fairkd_jax.configs import base
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "rkd_distance", "rkd_angle")
    return config
