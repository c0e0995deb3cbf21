"""Softened probabilities, and the adversary, its lambda a ratio of gradients."""

from ml_collections import ConfigDict

from configs import ckd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(ckd.get_config(preset), "ratio")
