"""The same as `--config lskd_adv`."""

from fairkd_jax.configs.lskd_adv import get_config as get_config
