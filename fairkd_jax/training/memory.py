"""Checks that a step fits the memory, before the first step runs."""

from typing import Any

import jax

from fairkd_jax import host_memory
from fairkd_jax.data.available_memory import read_available_bytes, read_available_device_bytes
from fairkd_jax.errors import UsageError

# Upper bound on retained memory on a CPU, as a multiple of the step's peak (measured: 2.6); see
# `host_memory`.
_RETAINED = 4
# Usable share of a host's free memory. A step of 14 students with a plan of 20.7 GiB took 21.9 GiB: the C
# library keeps memory that was freed in pieces, such as the states of the students before they are joined.
_USABLE = 0.9


def measure_peak(compiled: Any) -> float:
    """Returns the bytes of a compiled program at its peak, arguments and results included, by XLA's count."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0.0
    whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return float(whole - memory.alias_size_in_bytes)


def plan_free_memory(peak: float, coming: float, devices: int) -> float:
    """Returns the bytes that a step may take on each device of this process; 0.0 if unknown.

    The devices of a CPU share the host's memory. Where a multiple of the step would not fit there, the C
    library must give freed memory back.

    Args:
      peak: Bytes of the step at its peak, on a device.
      coming: Bytes that the host still needs for images.
      devices: Number of this process's devices that take part.
    """
    if jax.default_backend() != "cpu":
        return float(read_available_device_bytes())
    if not read_available_bytes():
        return 0.0
    if read_available_bytes() - coming < _RETAINED * devices * peak:
        host_memory.return_free_memory()
    return max(1.0, _USABLE * read_available_bytes() - coming) / devices


def check_memory(each: int, across: int, peak: float, placed: float, free: float) -> None:
    """Checks that a step fits the memory.

    Args:
      each: Number of students of a population on a device; 0 for a single student.
      across: Number of devices that share the students.
      peak: Bytes of the step at its peak, on a device.
      placed: Bytes of the arrays that are there already and serve all students: the teacher, and images.
      free: Bytes that are free beside these arrays; 0.0 if unknown: then nothing is checked.

    Raises:
      UsageError: The step does not fit. The message names the number of members that would fit, if each takes
        the same.
    """
    if not free or not peak or peak <= free + placed:
        return
    needed, there = (f"{size / 2**30:.2f}" for size in (peak, free + placed))
    step = f"a step of {each * across} members" if each else "a step"
    room = f"{step} takes {needed} GiB, and may take {there}"
    fitting = int(each * free / (peak - placed)) * across
    if fitting:
        raise UsageError(f"{room}; --config.population.wave_size={fitting} trains so many at a time")
    none = ": not even one would fit" if each else ""
    raise UsageError(f"{room}{none}; a smaller batch_size or student.rematerialize may help")
