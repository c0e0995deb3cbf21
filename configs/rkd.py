"""The same as `--config rkd`."""

from fairkd_jax.configs.rkd import get_config as get_config
