"""The same as `--config ctkd_adv`."""

from fairkd_jax.configs.ctkd_adv import get_config as get_config
