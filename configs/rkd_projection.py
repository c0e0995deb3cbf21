"""Relational distillation, and the adversary by projection of gradients (arXiv 1801.07593)."""

from ml_collections import ConfigDict

from configs import rkd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(rkd.get_config(preset), "projection")
