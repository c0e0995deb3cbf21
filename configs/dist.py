"""The same as `--config dist`."""

from fairkd_jax.configs.dist import get_config as get_config
