"""Whether a step fits the memory, before it is begun."""

from typing import Any

import jax

from fairkd_jax import host_memory
from fairkd_jax.data.memory import available_bytes, available_device_bytes
from fairkd_jax.errors import UsageError

_KEPT = 4  # times its peak that a step may hold on a CPU, see `host_memory`, and something beside
# Of a host's free memory. With 14 students, a step with a plan of 20.7 GiB was seen to take 21.9: what was
# freed in pieces, such as the states of the students before they are joined, stays with the C library.
_USED = 0.9


def peak_bytes(compiled: Any) -> float:
    """Memory at the peak of a compiled program, arguments and results included, by XLA's count."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0.0
    whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return float(whole - memory.alias_size_in_bytes)


def room_for(peak: float, coming: float, devices: int) -> float:
    """Memory that a step may take on each of this process's devices; 0 if unknown.

    The devices of a CPU share the host's memory. Where a multiple of the step would not fit there, the C
    library is made to keep none of it.

    Args:
      peak: bytes of the step at its peak, on a device.
      coming: bytes that the host has yet to take for something else: images.
      devices: how many of this process's take part.
    """
    if jax.default_backend() != "cpu":
        return float(available_device_bytes())
    if not available_bytes():
        return 0.0
    if available_bytes() - coming < _KEPT * devices * peak:
        host_memory.return_freed()
    return max(1.0, _USED * available_bytes() - coming) / devices


def check_room(each: int, across: int, peak: float, placed: float, free: float) -> None:
    """Checks that a step fits the memory.

    Args:
      each: how many students of a population a device has; 0 for a lone one.
      across: how many devices share the students out.
      peak: bytes of the step at its peak, on a device.
      placed: bytes of what is there already and serves all students: the teacher, and images.
      free: bytes that are free beside that; 0 if unknown: then nothing is checked.

    Raises:
      UsageError: it does not fit; names the number of members that would, if there is one and each takes the
        same.
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
