"""Measures parts of the project side by side with what they replace: python scripts/benchmark.py angle.

angle  RKD's angle loss, value and gradient at batch 128 and widths 1280 and 1536, against the same formula
       without chunks: milliseconds (median of the rounds, taken in turn) and temporary memory.
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.objectives import rkd

BATCH, STUDENT_WIDTH, TEACHER_WIDTH = 128, 1280, 1536


def angle_without_chunks(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """The angle loss through the whole [B, B, B] tensor, from inner products."""

    def cosines(emb: jax.Array) -> jax.Array:
        gram = jnp.matmul(emb, emb.T, precision="highest")
        squares = jnp.diagonal(gram)
        squared = squares[:, None] + squares[None, :] - 2.0 * gram
        apart = ~jnp.eye(len(emb), dtype=bool)
        inverse = jnp.where(apart, 1.0 / jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        products = gram[None] - gram[:, :, None] - gram[:, None, :] + squares[:, None, None]
        return products * inverse[:, :, None] * inverse[:, None, :]

    difference = jnp.abs(cosines(student) - cosines(teacher))
    return jnp.mean(jnp.where(difference < 1.0, 0.5 * difference**2, difference - 0.5))


def compare(functions: Mapping[str, Callable[..., Any]], arguments: tuple, rounds: int) -> None:
    """Compiles the functions, runs them in turn, and prints a table; ratios are to the last one."""
    compiled = {name: jax.jit(f).lower(*arguments).compile() for name, f in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for number in range(rounds + 1):  # the first one does not count
        for name, run in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            if number:
                times[name].append(time.perf_counter() - start)
    *_, last = compiled
    print(f"{jax.default_backend()}, jax {jax.__version__}, {rounds} rounds")
    print(f"{'':16}  {'ms':>8}  {'ratio':>6}  {'memory MiB':>10}")
    for name, run in compiled.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times[last], strict=True))
        memory = run.memory_analysis().temp_size_in_bytes / 2**20
        print(f"{name:16}  {1e3 * statistics.median(times[name]):8.2f}  {ratio:6.2f}  {memory:10.1f}")


def angle(rounds: int) -> None:
    """RKD's angle loss in chunks and without."""
    rng = np.random.default_rng(0)
    widths = (STUDENT_WIDTH, TEACHER_WIDTH)
    embeddings = tuple(jnp.asarray(rng.normal(size=(BATCH, width)), jnp.float32) for width in widths)
    functions = {"in chunks": rkd.angle_loss, "without chunks": angle_without_chunks}
    compare({name: jax.value_and_grad(f) for name, f in functions.items()}, embeddings, rounds)


PARTS = {"angle": angle}


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} must be at least 1")
    PARTS[options.part](options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
