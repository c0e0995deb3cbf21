"""The same as `--config sweep`."""

from fairkd_jax.configs.sweep import get_config as get_config
