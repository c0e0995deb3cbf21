"""Teacher alone, from labels; `teacher.checkpoint` of other runs can name the folder of the run."""

from ml_collections import ConfigDict

from fairkd_jax.configs import base
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = base.get_config(preset)
    for key in config.student:
        config.student[key] = config.teacher[key]
    config.epochs = config.teacher.epochs
    config.data.image_size = config.teacher.image_size or config.data.image_size
    config.optimizer.learning_rate = config.teacher.learning_rate
    return config
