"""Relational distillation, with the adversary."""

from fairkd_jax.configs import rkd
from fairkd_jax.configs.words import with_adversary

get_config = with_adversary(rkd)
