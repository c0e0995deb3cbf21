"""The same as `--config student`."""

from fairkd_jax.configs.student import get_config as get_config
