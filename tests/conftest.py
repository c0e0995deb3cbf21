"""Settings that every test shares: eight simulated devices and strict numerics."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
