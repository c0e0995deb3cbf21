"""Placebo control: `rkd_adv` with groups that are shuffled within each class of the training images.

The adversary's gradient is noise then. The disparity on the test images, whose groups are true, must not
improve on the disparity at lambda 0 (`--baseline`) by more than the seeds differ.
"""

from ml_collections import ConfigDict

from fairkd_jax.configs import rkd_adv
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = rkd_adv.get_config(preset)
    config.data.control = "shuffle"
    return config
