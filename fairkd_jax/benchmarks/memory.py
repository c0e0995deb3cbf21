"""How much memory the training step takes, and the batch that fits, for the platform it is compiled for."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.program import Parts, Setting
from fairkd_jax.errors import UsageError
from fairkd_jax.ops import compiling_for
from fairkd_jax.training.room import peak_bytes
from fairkd_jax.training.sharding import make_mesh, shapes_on

HERE = "here"
_GIBIBYTE = 2**30
_MULTIPLE = 8  # of which a batch is looked for


def run(setting: Setting, *, platform: str, limit: float) -> dict[str, Any]:
    """Prints the peak of a step, with and without rematerialisation, and the largest batch within a limit.

    Nothing is run: the figures are XLA's plan for the program that it has compiled.

    Args:
      setting: of the step.
      platform: "here", or a TPU topology such as "v5e:1x1", for which libtpu compiles on any machine.
      limit: GiB of memory of the device.

    Returns:
      The same figures.

    Raises:
      UsageError: the platform cannot be compiled for.
    """
    device, name = _target(platform)
    rows = []
    print(f"peak memory of one step, compiled for {name}; the search for a batch compiles some programs")
    for again in (False, True):
        wanted = replace(setting, rematerialize=again)
        peak = _peak(wanted, device, setting.batch)
        print(f"{wanted.name}: {peak / _GIBIBYTE:.2f} GiB", flush=True)
        peak_of = functools.partial(_peak, wanted, device)
        fits, fitting = _largest(peak_of, setting.batch, peak, limit * _GIBIBYTE)
        print(f"  within {limit:g} GiB: batch {fits}, {fitting / _GIBIBYTE:.2f} GiB", flush=True)
        rows.append(
            {
                "rematerialize": again,
                "batch": setting.batch,
                "peak_bytes": peak,
                "limit_bytes": limit * _GIBIBYTE,
                "largest_batch": fits,
                "largest_batch_bytes": fitting,
            }
        )
    return {"compiled_for": name, "setting": setting.name, "rows": rows}


def _target(platform: str) -> tuple[Any, str]:
    if platform == HERE:
        device = jax.devices()[0]
        return device, f"{jax.default_backend()} ({device.device_kind})"
    from jax.experimental import topologies

    try:
        devices: Sequence[Any] = topologies.get_topology_desc(platform="tpu", topology_name=platform).devices
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot compile for {platform!r}: {reason} (it needs libtpu: pip install libtpu; topologies are"
            " called v5e:1x1, v6e:1x1, v4:2x2x1)"
        ) from error
    return devices[0], f"tpu ({devices[0].device_kind})"


def _peak(setting: Setting, device: Any, batch: int) -> float:
    setting = replace(setting, batch=batch)
    parts = Parts(setting)
    image = jnp.zeros((1, setting.size, setting.size, 3))
    variables = jax.eval_shape(parts.teacher.init, jax.random.key(0), image)
    arguments = (
        jax.eval_shape(parts.init),
        jax.eval_shape(parts.folded, variables),
        parts.batch(),
        jax.eval_shape(parts.weights),
    )
    with compiling_for(device.platform):
        lowered = parts.step().lower(*shapes_on(make_mesh([device]), arguments))
        try:
            return peak_bytes(lowered.compile())
        except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what does not fit, and says so
            needed = re.search(r"total memory required[^(]*\(([\d.]+)G\)", str(error))
            if needed is None:
                raise
            return float(needed[1]) * _GIBIBYTE


def _largest(peak_of: Callable[[int], float], batch: int, peak: float, limit: float) -> tuple[int, float]:
    """The largest batch within the limit and its peak, or one that leaves less than a fiftieth of it unused.

    Args:
      peak_of: batch -> bytes; grows with the batch, nearly linearly.
      batch: one to begin with.
      peak: its bytes.
      limit: in bytes.
    """
    fits, too_large = (0, 0.0), (0, 0.0)  # batch and peak; 0: none is known yet
    before = (0, 0.0)
    while True:
        if peak <= limit:
            fits = (batch, peak)
        else:
            too_large = (batch, peak)
        if fits[0] and (0 < too_large[0] <= fits[0] + _MULTIPLE or fits[1] > 0.98 * limit):
            return fits
        most = (too_large[0] - 1) // _MULTIPLE * _MULTIPLE  # that may still fit
        if too_large[0] and most < _MULTIPLE:
            raise UsageError(f"not even a batch of {_MULTIPLE} fits {limit / _GIBIBYTE:g} GiB")
        # Along the line through the last two, to between what fits and what does not.
        slope = max(1.0, (peak - before[1]) / (batch - before[0]))
        before = (batch, peak)
        batch = int(batch + (limit - peak) / slope) // _MULTIPLE * _MULTIPLE
        batch = max(batch, fits[0] + _MULTIPLE)
        if too_large[0]:
            batch = min(batch, most)
        peak = peak_of(batch)
