"""The limits of the machine, measured in the same run as the programs that are compared with them."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Side of the matrix, and numbers in the array, by platform.
SIDES = {"cpu": 1024, "gpu": 8192, "tpu": 8192}
NUMBERS = {"cpu": 2**26, "gpu": 2**28, "tpu": 2**28}
_REPETITIONS = 10


@functools.cache
def measure_product_rate() -> float:
    """Measures the floating-point operations per second of a large matrix product of random numbers.

    The matrices are float32 on a CPU, else bfloat16. The rate is measured once in a process.
    """
    side = SIDES[jax.default_backend()]
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    matrix = make_random_array((side, side), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2.0 * side**3 / _measure_shortest(lambda: product(matrix))


@functools.cache
def measure_copy_rate() -> float:
    """Measures the bytes per second of a pass over memory, bytes read plus bytes written.

    The rate is measured once in a process.
    """
    large = make_random_array((NUMBERS[jax.default_backend()],), jnp.float32)
    size = 2.0 * large.nbytes
    # In place: memory that is new to the process is much slower.
    copy = jax.jit(lambda x: x + 1.0, donate_argnums=0)

    def run_copy() -> Any:
        nonlocal large
        large = copy(large)
        return large

    return size / _measure_shortest(run_copy)


def make_random_array(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Makes an array of normal random numbers without compiling a program; no number is 0.

    Args:
      shape: Shape of the array.
      dtype: Dtype of the array.

    Returns:
      The array; its numbers repeat after 2**20 elements.
    """
    block = np.random.default_rng(0).normal(size=2**20).astype(np.float32)
    return jnp.asarray(np.resize(block, shape)).astype(dtype)


def _measure_shortest(run: Callable[[], Any]) -> float:
    """Returns the seconds of the shortest of some runs."""
    seconds = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
