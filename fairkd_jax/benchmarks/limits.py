"""What a machine does at best, measured in the same run as all that is compared with it."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# By platform: the side of the matrix, and the numbers of the array.
SIDES = {"cpu": 1024, "gpu": 8192, "tpu": 8192}
NUMBERS = {"cpu": 2**26, "gpu": 2**28, "tpu": 2**28}
_TIMES = 10


@functools.cache
def product_rate() -> float:
    """Floating-point operations per second of a large matrix product of random numbers; measured once."""
    side = SIDES[jax.default_backend()]
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    matrix = random_array((side, side), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2.0 * side**3 / _best(lambda: product(matrix))


@functools.cache
def copy_rate() -> float:
    """Bytes per second of a pass over memory, counting those read and those written; measured once."""
    large = random_array((NUMBERS[jax.default_backend()],), jnp.float32)
    size = 2.0 * large.nbytes
    # In place: memory that is new to the process is slower by far.
    copy = jax.jit(lambda x: x + 1.0, donate_argnums=0)

    def run() -> Any:
        nonlocal large
        large = copy(large)
        return large

    return size / _best(run)


def random_array(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Random numbers that repeat after a million: nothing is compiled for them, and none of them is 0."""
    block = np.random.default_rng(0).normal(size=2**20).astype(np.float32)
    return jnp.asarray(np.resize(block, shape)).astype(dtype)


def _best(run: Callable[[], Any]) -> float:
    """The shortest of some runs, in seconds."""
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
