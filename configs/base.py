"""All keys of a config; `python train.py --list` explains each key."""

from fairkd_jax.configs.base import KEYS, PRESETS, get_config

__all__ = ["KEYS", "PRESETS", "get_config"]
