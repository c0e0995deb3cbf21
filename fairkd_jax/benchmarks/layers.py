"""The implementations of depthwise convolution, for each shape in a network."""

import functools
import math
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.limits import make_random_array, measure_copy_rate
from fairkd_jax.benchmarks.rounds import (
    compile_together,
    count_runs_within,
    measure_mean_seconds,
    run_in_turn,
)
from fairkd_jax.benchmarks.setting import create_efficientnet
from fairkd_jax.models.architecture import Architecture
from fairkd_jax.ops import depthwise_conv, native

_IMPLEMENTATIONS = ("lax", "shift", "native")
_PASSES = ("value", "gradient of the image", "gradient of the kernel")
_ROUND_SECONDS = 0.05
_MOST_RUNS = 50  # each run allocates its results before the results of the first run are freed


def list_shapes(architecture: Architecture, size: int) -> list[dict[str, Any]]:
    """Lists the shapes of the depthwise convolutions of a network.

    Args:
      architecture: Architecture of the network.
      size: Side of the network's images, in pixels.

    Returns:
      A dict for each shape: `size` of the input, `channels`, `kernel`, `stride`, and `layers`, the number of
      convolutions with this shape.
    """
    counts: dict[tuple[int, int, int, int], int] = {}
    size, channels = -(-size // 2), architecture.stem
    for stage in architecture.stages:
        for number in range(stage.blocks):
            stride = 1 if number else stage.stride
            key = (size, channels * stage.expand, stage.kernel, stride)
            counts[key] = counts.get(key, 0) + 1
            size, channels = -(-size // stride), stage.filters
    names = ("size", "channels", "kernel", "stride")
    return [dict(zip(names, key, strict=True)) | {"layers": count} for key, count in counts.items()]


def list_implementations(x: Any, kernel: Any) -> list[str]:
    """Lists the implementations of depthwise convolution that this machine has for the operands.

    Args:
      x: Shape and dtype of the images, [B, H, W, C].
      kernel: Shape and dtype of the kernel, [k, k, 1, C].

    Returns:
      Names of the implementations.
    """
    return [name for name in _IMPLEMENTATIONS if name != "native" or native.can_serve(x, kernel)]


def run(model: str, *, size: int, batch: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """Prints milliseconds of the value and of each gradient, as medians over rounds.

    The kernels in C++ compute both gradients at once, so each gradient has the time of both.

    Args:
      model: Name of the model.
      size: Side of the network's images, in pixels.
      batch: Images in a batch.
      dtype: Dtype of the images.
      rounds: Number of rounds, in which all implementations run in turn.

    Returns:
      A dict for each shape; see `list_shapes`. Each implementation has a dict from its passes to seconds.
      `floor` is the seconds to move the bytes of one pass at the rate of a pass over memory. A pass reads two
      of input, kernel and output, and writes the third.

    Raises:
      UsageError: The model is unknown.
    """
    architecture = create_efficientnet(model, num_classes=2).architecture
    rows, rate = list_shapes(architecture, size), measure_copy_rate()
    passes_by_row = [_make_passes(row, architecture.padding, batch, jnp.dtype(dtype)) for row in rows]
    print(f"depthwise convolutions of {model}, {size} px, batch {batch}, {dtype}: ms of a pass")
    compile_together([each.compile for passes in passes_by_row for each in passes.values()])
    for row, passes in zip(rows, passes_by_row, strict=True):
        timers = {
            key: functools.partial(measure_mean_seconds, each, each.count_runs())
            for key, each in passes.items()
        }
        row["floor"] = next(iter(passes.values())).bytes / rate
        for (name, kind), times in run_in_turn(timers, rounds).items():
            row.setdefault(name, {})[kind] = statistics.median(times)
        passes.clear()  # frees the arrays
        print(
            f"{row['size']} px, {row['channels']} channels, {row['kernel']}x{row['kernel']}, stride"
            f" {row['stride']}, {row['layers']} of them: floor {1e3 * row['floor']:.3f}",
            flush=True,
        )
        for name in _IMPLEMENTATIONS:
            if name in row:
                figures = ", ".join(f"{kind} {1e3 * seconds:.3f}" for kind, seconds in row[name].items())
                print(f"  {name:6}  {figures}", flush=True)
    return rows


class _LayerPass:
    """One pass of one depthwise convolution by one implementation."""

    def __init__(
        self, row: dict[str, Any], padding: Any, batch: int, dtype: jnp.dtype, name: str, kind: str
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
        }[kind]

    def compile(self) -> None:
        """Compiles the pass, without arrays."""
        self._compiled = jax.jit(self._function).lower(*self._shapes).compile()

    def count_runs(self) -> int:
        """Makes the arrays and counts the runs of a round."""
        self._arrays = tuple(make_random_array(a.shape, a.dtype) for a in self._shapes)
        return min(_MOST_RUNS, count_runs_within(self, _ROUND_SECONDS))

    def measure_seconds(self, runs: int) -> float:
        """Measures the seconds of a number of runs."""
        start = time.perf_counter()
        for _ in range(runs):
            result = self._compiled(*self._arrays)
        jax.block_until_ready(result)
        return time.perf_counter() - start


def _make_passes(
    row: dict[str, Any], padding: Any, batch: int, dtype: jnp.dtype
) -> dict[tuple[str, str], _LayerPass]:
    """Returns the passes of a row's shape by implementation and pass."""
    channels, kernel = row["channels"], row["kernel"]
    x = jax.ShapeDtypeStruct((batch, row["size"], row["size"], channels), dtype)
    names = list_implementations(x, jax.ShapeDtypeStruct((kernel, kernel, 1, channels), jnp.float32))
    return {
        (name, kind): _LayerPass(row, padding, batch, dtype, name, kind) for name in names for kind in _PASSES
    }
