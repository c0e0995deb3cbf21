"""DIST, with the adversary."""

from fairkd_jax.configs import dist
from fairkd_jax.configs.words import with_adversary

get_config = with_adversary(dist)
