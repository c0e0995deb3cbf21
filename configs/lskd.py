"""The same as `--config lskd`."""

from fairkd_jax.configs.lskd import get_config as get_config
