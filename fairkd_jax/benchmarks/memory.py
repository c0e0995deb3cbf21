"""Measurement of a training step's memory and of the largest batch that fits, by XLA's plan."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.program_parts import ProgramParts
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.engine.sharding import make_abstract_arrays, make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.ops import use_platform
from fairkd_jax.training.memory import measure_peak

HERE = "here"
_GIBIBYTE = 2**30
_MULTIPLE = 8  # the search tries only multiples of this batch


def run(setting: BenchmarkSetting, *, platform: str, limit: float) -> dict[str, Any]:
    """Prints the peak of a step, with and without rematerialisation, and the largest batch within a limit.

    No program is run: the figures are XLA's plan for the compiled program.

    Args:
      setting: Setting of the step.
      platform: "here", or a TPU topology such as "v5e:1x1"; libtpu compiles for TPUs on any machine.
      limit: Memory of the device, in GiB.

    Returns:
      `compiled_for`, `setting` (its name) and `rows`, each with `rematerialize`, `batch`, `peak_bytes`,
      `limit_bytes`, `largest_batch` and `largest_batch_bytes`.

    Raises:
      UsageError: XLA cannot compile for the platform, or not even the smallest batch fits.
    """
    device, name = _find_target(platform)
    rows = []
    print(f"peak memory of one step, compiled for {name}; the search for a batch compiles some programs")
    for rematerialize in (False, True):
        wanted = replace(setting, rematerialize=rematerialize)
        peak = _compute_peak(wanted, device, setting.batch)
        print(f"{wanted.name}: {peak / _GIBIBYTE:.2f} GiB", flush=True)
        peak_of = functools.partial(_compute_peak, wanted, device)
        largest, largest_peak = find_largest_batch(peak_of, setting.batch, peak, limit * _GIBIBYTE)
        print(f"  within {limit:g} GiB: batch {largest}, {largest_peak / _GIBIBYTE:.2f} GiB", flush=True)
        rows.append(
            {
                "rematerialize": rematerialize,
                "batch": setting.batch,
                "peak_bytes": peak,
                "limit_bytes": limit * _GIBIBYTE,
                "largest_batch": largest,
                "largest_batch_bytes": largest_peak,
            }
        )
    return {"compiled_for": name, "setting": setting.name, "rows": rows}


def _find_target(platform: str) -> tuple[Any, str]:
    """Returns a device to compile for, and its description."""
    if platform == HERE:
        device = jax.devices()[0]
        return device, f"{jax.default_backend()} ({device.device_kind})"
    from jax.experimental import topologies

    try:
        devices: Sequence[Any] = topologies.get_topology_desc(platform="tpu", topology_name=platform).devices
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot compile for {platform!r}: {reason} (install libtpu with `pip install libtpu`; topologies"
            " have names such as v5e:1x1, v6e:1x1, v4:2x2x1)"
        ) from error
    return devices[0], f"tpu ({devices[0].device_kind})"


def _compute_peak(setting: BenchmarkSetting, device: Any, batch: int) -> float:
    """Compiles the step for a device and returns the bytes at the peak."""
    setting = replace(setting, batch=batch)
    parts = ProgramParts(setting)
    image = jnp.zeros((1, setting.size, setting.size, 3))
    variables = jax.eval_shape(parts.teacher.init, jax.random.key(0), image)
    arguments = (
        jax.eval_shape(parts.make_state),
        jax.eval_shape(parts.fold_teacher, variables),
        parts.make_batch(),
        jax.eval_shape(parts.make_weights),
    )
    with use_platform(device.platform):
        lowered = parts.make_step().lower(*make_abstract_arrays(make_mesh([device]), arguments))
        try:
            return measure_peak(lowered.compile())
        except jax.errors.JaxRuntimeError as error:
            # A TPU's compiler rejects a program that does not fit; its message names the memory required.
            needed = re.search(r"total memory required[^(]*\(([\d.]+)G\)", str(error))
            if needed is None:
                raise
            return float(needed[1]) * _GIBIBYTE


def find_largest_batch(
    peak_of: Callable[[int], float], batch: int, peak: float, limit: float
) -> tuple[int, float]:
    """Searches for the largest batch within a limit.

    The search ends early at a batch that leaves less than a fiftieth of the limit unused.

    Args:
      peak_of: Function from the batch to bytes, which grows nearly linearly.
      batch: Batch to begin with.
      peak: Bytes of this batch.
      limit: Limit in bytes.

    Returns:
      The batch, a multiple of 8 unless `batch` itself is returned, and its bytes.

    Raises:
      UsageError: Not even a batch of 8 fits.
    """
    fits, too_large = (0, 0.0), (0, 0.0)  # batch and peak; 0 while no such batch is known
    before = (0, 0.0)
    while True:
        if peak <= limit:
            fits = (batch, peak)
        else:
            too_large = (batch, peak)
        if fits[0] and (0 < too_large[0] <= fits[0] + _MULTIPLE or fits[1] > 0.98 * limit):
            return fits
        most = (too_large[0] - 1) // _MULTIPLE * _MULTIPLE  # the largest batch that may still fit
        if too_large[0] and most < _MULTIPLE:
            raise UsageError(f"not even a batch of {_MULTIPLE} fits {limit / _GIBIBYTE:g} GiB; raise --limit")
        # The next batch lies on the line through the last two points, between the known bounds.
        slope = max(1.0, (peak - before[1]) / (batch - before[0]))
        before = (batch, peak)
        batch = int(batch + (limit - peak) / slope) // _MULTIPLE * _MULTIPLE
        batch = max(batch, fits[0] + _MULTIPLE)
        if too_large[0]:
            batch = min(batch, most)
        peak = peak_of(batch)
