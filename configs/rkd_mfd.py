"""Relational distillation, and fair feature distillation by MMD (Jung et al. 2021, arXiv 2106.04411)."""

from ml_collections import ConfigDict

from configs import rkd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(rkd.get_config(preset), "mfd")
