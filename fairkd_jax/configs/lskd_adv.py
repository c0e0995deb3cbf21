"""Conventional distillation of standardised logits, with the adversary."""

from fairkd_jax.configs import lskd
from fairkd_jax.configs.words import with_adversary

get_config = with_adversary(lskd)
