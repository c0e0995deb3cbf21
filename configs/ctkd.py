"""The same as `--config ctkd`."""

from fairkd_jax.configs.ctkd import get_config as get_config
