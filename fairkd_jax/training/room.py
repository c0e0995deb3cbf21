"""Whether a population fits the memory, before it is begun."""

from typing import Any

import jax

from fairkd_jax.data.memory import available_bytes, available_device_bytes
from fairkd_jax.errors import UsageError


def peak_bytes(compiled: Any) -> float:
    """Memory at the peak of a compiled program, arguments and results included, by XLA's count."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0.0
    whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return float(whole - memory.alias_size_in_bytes)


def free_bytes() -> float:
    """Memory that a program may still take; 0 if unknown."""
    return float(available_device_bytes() if jax.default_backend() != "cpu" else available_bytes())


def check_room(each: int, across: int, peak: float, placed: float, free: float) -> None:
    """Checks that a population's step fits the memory.

    Args:
      each: how many students a device has.
      across: how many devices share the students out.
      peak: bytes of the step at its peak, on a device.
      placed: bytes of what is there already and serves all students: the teacher, and images.
      free: bytes that are free beside that; 0 if unknown: then nothing is checked.

    Raises:
      UsageError: it does not fit; names the number of members that would, if each takes the same.
    """
    if not free or not peak or peak <= free + placed:
        return
    fitting = int(each * free / (peak - placed)) * across
    needed, there = (f"{size / 2**30:.2f}" for size in (peak, free + placed))
    room = f"a step of {each * across} members takes {needed} GiB, and {there} are free"
    if not fitting:
        raise UsageError(
            f"{room}: not even one would fit; a smaller batch_size or student.rematerialize may help"
        )
    raise UsageError(f"{room}; --config.population.wave_size={fitting} trains so many at a time")
