"""The implementations of depthwise convolution, for each shape that a network has."""

import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.rounds import in_turn
from fairkd_jax.models import create_model
from fairkd_jax.models.architecture import Architecture
from fairkd_jax.ops import depthwise_conv, native

_IMPLEMENTATIONS = ("lax", "shift", "native")


def shapes(architecture: Architecture, size: int) -> list[dict[str, Any]]:
    """The depthwise convolutions of a network: input size, channels, kernel, stride, how many of them."""
    found: dict[tuple[int, int, int, int], int] = {}
    size, channels = -(-size // 2), architecture.stem
    for stage in architecture.stages:
        for number in range(stage.blocks):
            stride = 1 if number else stage.stride
            key = (size, channels * stage.expand, stage.kernel, stride)
            found[key] = found.get(key, 0) + 1
            size, channels = -(-size // stride), stage.filters
    names = ("size", "channels", "kernel", "stride")
    return [dict(zip(names, key, strict=True)) | {"layers": count} for key, count in found.items()]


def run(model: str, *, size: int, batch: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """Prints milliseconds of value and gradients of each implementation, medians of rounds taken in turn.

    Args:
      model: a name.
      size: pixels of the side of the network's images.
      batch: images.
      dtype: of the images.
      rounds: how many.

    Returns:
      The same figures, a dict for each shape.
    """
    architecture = create_model(model, num_classes=2).architecture
    rows = shapes(architecture, size)
    print(f"depthwise convolutions of {model}, {size} px, batch {batch}, {dtype}: ms of value and gradients")
    print(f"{'size':>4}  {'channels':>8}  {'k':>1}  {'stride':>6}  {'layers':>6}", end="")
    print("".join(f"  {name:>8}" for name in _IMPLEMENTATIONS))
    for row in rows:
        row |= _measured(row, architecture.padding, batch, jnp.dtype(dtype), rounds)
        print(f"{row['size']:4}  {row['channels']:8}  {row['kernel']:1}  {row['stride']:6}", end="")
        times = (f"{1e3 * row[name]:8.2f}" if name in row else f"{'-':>8}" for name in _IMPLEMENTATIONS)
        print(f"  {row['layers']:6}  " + "  ".join(times), flush=True)
    return rows


def _measured(
    row: dict[str, Any], padding: Any, batch: int, dtype: jnp.dtype, rounds: int
) -> dict[str, float]:
    x = jax.random.normal(jax.random.key(0), (batch, row["size"], row["size"], row["channels"]), dtype)
    kernel = jax.random.normal(jax.random.key(1), (row["kernel"], row["kernel"], 1, row["channels"]))

    def make(name: str) -> Any:
        def gradients(x: jax.Array, kernel: jax.Array) -> Any:
            def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
                return depthwise_conv(x, kernel, stride=row["stride"], padding=padding, implementation=name)

            y, pullback = jax.vjp(convolve, x, kernel)
            return y, *pullback(y)

        return jax.jit(gradients)

    served = [name for name in _IMPLEMENTATIONS if name != "native" or native.suits(x, kernel)]
    timers = {name: functools.partial(_seconds, make(name), x, kernel) for name in served}
    for compiles in timers.values():
        compiles()
    return {name: statistics.median(times) for name, times in in_turn(timers, rounds).items()}


def _seconds(program: Any, *arguments: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start
