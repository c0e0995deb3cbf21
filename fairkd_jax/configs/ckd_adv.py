"""Conventional distillation, with the adversary."""

from fairkd_jax.configs import ckd
from fairkd_jax.configs.words import with_adversary

get_config = with_adversary(ckd)
