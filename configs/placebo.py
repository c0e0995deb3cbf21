"""Does it debias where there is nothing to learn from? The groups of the training images are dealt out again.

Within each class they are shuffled, so that the adversary's gradient is noise: disparity on the test images,
whose groups are true, must not improve on that of lambda 0 (`--baseline`) by more than other seeds do.
"""

from ml_collections import ConfigDict

from configs import rkd_adv


def get_config(preset: str = "") -> ConfigDict:
    config = rkd_adv.get_config(preset)
    config.data.control = "shuffle"
    return config
