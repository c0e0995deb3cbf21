"""Softened probabilities, with a head for each group, domain-independent (arXiv 1911.11834)."""

from ml_collections import ConfigDict

from configs import ckd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(ckd.get_config(preset), "heads")
