"""Positive control: labels and the adversary, with a patch in each image that marks the group.

The student has no teacher, because a teacher would pass the patch on. With lambda 0
(`--config.adversary.weight=0.0`) the adversary predicts the group, and so does a probe
(`fairkd-eval RUN --probe`). As lambda rises, the probe must fall.
"""

from ml_collections import ConfigDict

from fairkd_jax.configs import student
from fairkd_jax.configs.words import accept_words


@accept_words
def get_config(preset: str) -> ConfigDict:
    """Returns the config for a data preset."""
    config = student.get_config(f"{preset},adv")
    config.data.control = "patch"
    config.adversary.steps = 2  # so that the adversary keeps up with the student
    return config
