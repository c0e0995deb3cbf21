"""The same as `--config positive_control`."""

from fairkd_jax.configs.positive_control import get_config as get_config
