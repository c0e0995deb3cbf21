"""The same as `--config kdpp`."""

from fairkd_jax.configs.kdpp import get_config as get_config
