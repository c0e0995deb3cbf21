"""The same as `--config dkd`."""

from fairkd_jax.configs.dkd import get_config as get_config
