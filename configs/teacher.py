"""The same as `--config teacher`."""

from fairkd_jax.configs.teacher import get_config as get_config
