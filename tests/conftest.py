"""Settings that every test shares: eight simulated devices, strict numerics, one compilation cache."""

import jax


def pytest_configure(config):
    jax.config.update("jax_num_cpu_devices", 8)
    # Eight simulated devices meet at every reduction: on few cores, two programs under way can starve.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # Many tests compile the same small programs, and the workers share what one of them compiled.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
