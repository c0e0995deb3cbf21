"""Softened probabilities, and an earlier study's bias critic, as it was run (after arXiv 2006.08564)."""

from ml_collections import ConfigDict

from configs import ckd
from configs._debiasing import debiased


def get_config(preset: str = "") -> ConfigDict:
    return debiased(ckd.get_config(preset), "critic")
