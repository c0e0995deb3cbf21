"""The same as `--config dkd_adv`."""

from fairkd_jax.configs.dkd_adv import get_config as get_config
