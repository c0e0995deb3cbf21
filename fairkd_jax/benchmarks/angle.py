"""RKD's angle loss in chunks, against the same loss through the whole [B, B, B] tensor."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.objectives import rkd

BATCH, STUDENT_WIDTH, TEACHER_WIDTH = 128, 1280, 1536


def compute_whole_angle_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Computes the angle loss through the whole [B, B, B] tensor, from inner products.

    Args:
      student: Student embeddings, float [B, Ds].
      teacher: Teacher embeddings, float [B, Dt], which get no gradient.

    Returns:
      The loss, a scalar.
    """

    def compute_cosines(emb: jax.Array) -> jax.Array:
        gram = jnp.matmul(emb, emb.T, precision="highest")
        squares = jnp.diagonal(gram)
        squared = squares[:, None] + squares[None, :] - 2.0 * gram
        apart = ~jnp.eye(len(emb), dtype=bool)
        inverse = jnp.where(apart, 1.0 / jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        products = gram[None] - gram[:, :, None] - gram[:, None, :] + squares[:, None, None]
        return products * inverse[:, :, None] * inverse[:, None, :]

    difference = jnp.abs(compute_cosines(student) - compute_cosines(jax.lax.stop_gradient(teacher)))
    return jnp.mean(jnp.where(difference < 1.0, 0.5 * difference**2, difference - 0.5))


def run(rounds: int) -> None:
    """Prints milliseconds (value and gradient) and temporary memory; milliseconds are medians over rounds.

    Args:
      rounds: Number of rounds, in which both forms run in turn.
    """
    rng = np.random.default_rng(0)
    widths = (STUDENT_WIDTH, TEACHER_WIDTH)
    embeddings = tuple(jnp.asarray(rng.normal(size=(BATCH, width)), jnp.float32) for width in widths)
    functions: dict[str, Callable[..., Any]] = {
        "in chunks": rkd.angle_loss,
        "without chunks": compute_whole_angle_loss,
    }
    _compare_functions(functions, embeddings, rounds)


def _compare_functions(functions: Mapping[str, Callable[..., Any]], arguments: tuple, rounds: int) -> None:
    """Compiles value and gradient of each function, runs them in turn and prints a table.

    The ratios in the table are to the last function.
    """
    gradients = {name: jax.jit(jax.value_and_grad(f)) for name, f in functions.items()}
    compiled = {name: f.lower(*arguments).compile() for name, f in gradients.items()}
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for number in range(rounds + 1):  # the first round is a warm-up
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if number:
                times[name].append(time.perf_counter() - start)
    *_, last = compiled
    print(f"{jax.default_backend()}, jax {jax.__version__}, {rounds} rounds")
    print(f"{'':16}  {'ms':>8}  {'ratio':>6}  {'memory MiB':>10}")
    for name, function in compiled.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times[last], strict=True))
        analysis = function.memory_analysis()
        memory = f"{analysis.temp_size_in_bytes / 2**20:.1f}" if analysis else "unknown"
        print(f"{name:16}  {1e3 * statistics.median(times[name]):8.2f}  {ratio:6.2f}  {memory:>10}")
