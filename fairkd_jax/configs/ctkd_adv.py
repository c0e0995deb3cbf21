"""Distillation at a learnt temperature, with the adversary."""

from fairkd_jax.configs import ctkd
from fairkd_jax.configs.words import with_adversary

get_config = with_adversary(ctkd)
