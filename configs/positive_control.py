"""Can the adversary remove what is certainly there? A patch in each image tells the group.

The student learns from labels alone: a teacher would hand the patch on. With `--config.adversary.weight=0.0`
the adversary reads the group, and so does a probe (`eval.py --probe`); as lambda rises, the probe must fall.
"""

from ml_collections import ConfigDict

from configs import student
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    config = debiased(student.get_config(preset), "adv")
    config.data.control = "patch"
    config.adversary.steps = 2  # an adversary that keeps up with the student
    return config
