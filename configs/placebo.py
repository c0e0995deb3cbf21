"""The same as `--config placebo`."""

from fairkd_jax.configs.placebo import get_config as get_config
