"""KD++: conventional distillation, and embeddings turned to the teacher's class means (Wang et al. 2023)."""

from ml_collections import ConfigDict

from fairkd_jax.configs import base
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = base.get_config(preset)
    config.objectives = ("cross_entropy", "ckd", "kdpp")
    config.ckd.weight = 1.0
    config.ckd.warmup_epochs = 2.0
    return config
