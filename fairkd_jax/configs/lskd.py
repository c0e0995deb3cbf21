"""Conventional distillation of standardised logits (Sun et al. 2024)."""

from ml_collections import ConfigDict

from fairkd_jax.configs import ckd
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = ckd.get_config(preset)
    config.ckd.standardize = True
    config.ckd.temperature = 2.0
    config.ckd.weight = 9.0
    return config
