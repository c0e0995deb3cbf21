"""The same as `--config kdpp_adv`."""

from fairkd_jax.configs.kdpp_adv import get_config as get_config
