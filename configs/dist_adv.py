"""The same as `--config dist_adv`."""

from fairkd_jax.configs.dist_adv import get_config as get_config
