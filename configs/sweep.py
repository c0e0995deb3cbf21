"""A sweep over lambda and seeds in one program: the students share the batch and the teacher's answer.

`--config.population.weights.adversary=0.0,0.5,2.0 --config.population.seeds=0,1,2` names other members, and
any objective's weight, or `--config.population.learning_rates`, can be an axis.
"""

from ml_collections import ConfigDict

from configs import rkd_adv


def get_config(preset: str = "") -> ConfigDict:
    config = rkd_adv.get_config(preset)
    config.population.weights.adversary = (0.0, 0.3, 1.0, 3.0)
    config.population.seeds = (0, 1)
    return config
