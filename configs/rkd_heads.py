"""Relational distillation, with a head for each group, domain-independent (arXiv 1911.11834)."""

from ml_collections import ConfigDict

from configs import rkd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(rkd.get_config(preset), "heads")
