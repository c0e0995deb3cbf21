"""The same as `--config ckd_adv`."""

from fairkd_jax.configs.ckd_adv import get_config as get_config
