"""Relational distillation, with the groups of a class weighted equally in the loss of the labels."""

from ml_collections import ConfigDict

from configs import rkd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(rkd.get_config(preset), "weights")
