"""Everything that is said of the speed, in one go and one document."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from fairkd_jax.benchmarks import layers, memory, population, step, tracing
from fairkd_jax.benchmarks.program import Program, Setting


@dataclass(frozen=True)
class Scale:
    """How large what is measured is.

    Attributes:
      size: pixels of the side.
      batch: images of a step.
      dtype: of the activations.
      largest: the batch at which the search for the best one ends.
      members: students of a population.
      small: size and batch of a population whose cost is in the launches.
      limit: GiB that a batch is looked for to fit.
    """

    size: int
    batch: int
    dtype: str
    largest: int
    members: int
    small: tuple[int, int]
    limit: float


SCALES = {
    "gpu": Scale(224, 128, "bfloat16", largest=1024, members=8, small=(64, 32), limit=16.0),
    "cpu": Scale(64, 8, "float32", largest=16, members=2, small=(32, 4), limit=0.25),
}


def about() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }


def run(student: str, teacher: str, *, rounds: int, peers: Sequence[str], python: str) -> dict[str, Any]:
    """Measures the step at a given and at the best batch, its kernels, layers, memory, and populations.

    Args:
      student: the name of a model.
      teacher: the name of a model.
      rounds: of each comparison.
      peers: see `step.run`.
      python: see `step.run`.

    Returns:
      All figures; on a CPU of small programs, to see that everything runs.
    """
    scale = SCALES["cpu" if jax.default_backend() == "cpu" else "gpu"]
    setting = Setting("step", student, teacher, scale.size, scale.batch, scale.dtype)
    best = step.best_batch(setting, scale.largest)
    batches = sorted({scale.batch, best})
    document: dict[str, Any] = {"best_batch": best}
    document["step"] = step.run(
        [replace(setting, batch=batch) for batch in batches], rounds=rounds, peers=peers, python=python
    )
    document["kernels"] = _kernels(setting)
    document["depthwise"] = layers.run(
        student, size=scale.size, batch=scale.batch, dtype=scale.dtype, rounds=rounds
    )
    document["population"] = population.run(setting, [scale.members], rounds)
    small = replace(setting, size=scale.small[0], batch=scale.small[1])
    document["small_population"] = population.run(small, [scale.members], rounds)
    document["memory"] = memory.run(setting, platform=memory.HERE, limit=scale.limit)
    return document


def _kernels(setting: Setting) -> dict[str, Any]:
    """The longest operations of a step, and the most memory that the device has had in use."""
    program = Program(setting)
    program.time(2)
    found = tracing.longest(program)
    print(f"the longest operations of {setting.name}")
    for row in found:
        share, origin = 100 * row["share"], row["from"][-70:]
        print(f"  {row['milliseconds']:8.3f} ms  {share:5.1f} %  {row['name']}  {origin}")
    statistics = jax.devices()[0].memory_stats() or {}
    return {"longest": found, "peak_bytes_in_use": statistics.get("peak_bytes_in_use")}
