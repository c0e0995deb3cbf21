"""Relational distillation, and the adversary, its lambda a ratio of gradients."""

from ml_collections import ConfigDict

from configs import rkd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(rkd.get_config(preset), "ratio")
