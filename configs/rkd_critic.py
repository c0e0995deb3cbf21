"""Relational distillation, and an earlier study's bias critic, as it was run (after arXiv 2006.08564)."""

from ml_collections import ConfigDict

from configs import rkd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(rkd.get_config(preset), "critic")
