"""Population of `rkd_adv` in one program: four lambdas with two seeds each.

The members share the batch and the teacher's answer. Other members:
`--config.population.weights.adversary=0.0,0.5,2.0 --config.population.seeds=0,1,2`. Any objective's weight,
or `--config.population.learning_rates`, can be an axis.
"""

from ml_collections import ConfigDict

from fairkd_jax.configs import rkd_adv
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = rkd_adv.get_config(preset)
    config.population.weights.adversary = (0.0, 0.3, 1.0, 3.0)
    config.population.seeds = (0, 1)
    return config
