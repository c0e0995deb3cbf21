"""The same as `--config rkd_adv`."""

from fairkd_jax.configs.rkd_adv import get_config as get_config
