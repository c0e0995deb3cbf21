"""The implementations of depthwise convolution, for each shape that a network has."""

import functools
import math
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.limits import copy_rate, random_array
from fairkd_jax.benchmarks.rounds import compile_together, in_turn, runs_within, seconds_of_one
from fairkd_jax.models import create_model
from fairkd_jax.models.architecture import Architecture
from fairkd_jax.ops import depthwise_conv, native

_IMPLEMENTATIONS = ("lax", "shift", "native")
_PASSES = ("value", "gradient of the image", "gradient of the kernel")
_ROUND_SECONDS = 0.05
_MOST_RUNS = 50  # results are made anew for each, before the first of them is given back


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


def implementations(x: Any, kernel: Any) -> list[str]:
    """The implementations of depthwise convolution that serve these operands here."""
    return [name for name in _IMPLEMENTATIONS if name != "native" or native.suits(x, kernel)]


def run(model: str, *, size: int, batch: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """Prints milliseconds of the value and of each gradient, medians of rounds in turn.

    The kernels in C++ compute both gradients at once: each of them is given the time of both.

    Args:
      model: a name.
      size: pixels of the side of the network's images.
      batch: images.
      dtype: of the images.
      rounds: how many.

    Returns:
      The same figures in seconds, a dict for each shape, in which each implementation has a dict of its
      passes. `floor` is of the bytes that one pass must move, at the rate of a pass over memory: it reads two
      of input, kernel and output, and writes the third.
    """
    architecture = create_model(model, num_classes=2).architecture
    rows, rate = shapes(architecture, size), copy_rate()
    programs = [_layers(row, architecture.padding, batch, jnp.dtype(dtype)) for row in rows]
    print(f"depthwise convolutions of {model}, {size} px, batch {batch}, {dtype}: ms of a pass")
    compile_together([layer.compile for of_row in programs for layer in of_row.values()])
    for row, of_row in zip(rows, programs, strict=True):
        timers = {n: functools.partial(seconds_of_one, layer, layer.runs()) for n, layer in of_row.items()}
        row["floor"] = next(iter(of_row.values())).bytes / rate
        for (name, what), times in in_turn(timers, rounds).items():
            row.setdefault(name, {})[what] = statistics.median(times)
        of_row.clear()  # and with it, its arrays
        print(
            f"{row['size']} px, {row['channels']} channels, {row['kernel']}x{row['kernel']}, stride"
            f" {row['stride']}, {row['layers']} of them: floor {1e3 * row['floor']:.3f}",
            flush=True,
        )
        for name in _IMPLEMENTATIONS:
            if name in row:
                found = ", ".join(f"{what} {1e3 * seconds:.3f}" for what, seconds in row[name].items())
                print(f"  {name:6}  {found}", flush=True)
    return rows


class _Layer:
    """One pass of one depthwise convolution by one implementation."""

    def __init__(
        self, row: dict[str, Any], padding: Any, batch: int, dtype: jnp.dtype, name: str, what: str
    ) -> None:
        side, channels, kernel = row["size"], row["channels"], row["kernel"]
        x = jax.ShapeDtypeStruct((batch, side, side, channels), dtype)
        weights = jax.ShapeDtypeStruct((kernel, kernel, 1, channels), jnp.float32)
        convolve = functools.partial(
            depthwise_conv, stride=row["stride"], padding=padding, implementation=name
        )
        y = jax.eval_shape(convolve, x, weights)
        self.bytes = sum(math.prod(a.shape) * a.dtype.itemsize for a in (x, weights, y))
        self._shapes = (x, weights, y)
        self._function = {
            "value": lambda x, weights, dy: convolve(x, weights),
            "gradient of the image": lambda x, weights, dy: jax.vjp(lambda x: convolve(x, weights), x)[1](dy),
            "gradient of the kernel": lambda x, weights, dy: jax.vjp(
                lambda weights: convolve(x, weights), weights
            )[1](dy),
        }[what]

    def compile(self) -> None:
        """Compiles it for arrays that are not there yet."""
        self._compiled = jax.jit(self._function).lower(*self._shapes).compile()

    def runs(self) -> int:
        """How many runs make a round, once the arrays are made."""
        self._arrays = tuple(random_array(a.shape, a.dtype) for a in self._shapes)
        return min(_MOST_RUNS, runs_within(self, _ROUND_SECONDS))

    def time(self, runs: int) -> float:
        """Seconds of so many runs."""
        start = time.perf_counter()
        for _ in range(runs):
            result = self._compiled(*self._arrays)
        jax.block_until_ready(result)
        return time.perf_counter() - start


def _layers(row: dict[str, Any], padding: Any, batch: int, dtype: jnp.dtype) -> dict[tuple[str, str], _Layer]:
    channels, kernel = row["channels"], row["kernel"]
    x = jax.ShapeDtypeStruct((batch, row["size"], row["size"], channels), dtype)
    names = implementations(x, jax.ShapeDtypeStruct((kernel, kernel, 1, channels), jnp.float32))
    return {
        (name, what): _Layer(row, padding, batch, dtype, name, what) for name in names for what in _PASSES
    }
