"""Softened probabilities, with the groups of a class drawn equally often."""

from ml_collections import ConfigDict

from configs import ckd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(ckd.get_config(preset), "sampling")
