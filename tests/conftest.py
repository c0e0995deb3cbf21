"""Settings that every test shares: eight simulated devices, strict numerics, one compilation cache."""

import os

import jax

# Eight simulated devices wait for one another in every reduction. XLA takes as many threads as there are
# cores, unless this variable names another number; on few cores the devices would wait for ever.
os.environ.setdefault("NPROC", "24")


def pytest_configure(config):
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # Many tests compile the same small programs, and the workers share what one of them compiled.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
