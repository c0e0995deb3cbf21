"""The same as `--config ckd`."""

from fairkd_jax.configs.ckd import get_config as get_config
