"""Softened probabilities, and fair feature distillation by MMD (Jung et al. 2021, arXiv 2106.04411)."""

from ml_collections import ConfigDict

from configs import ckd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(ckd.get_config(preset), "mfd")
