"""The longest operations of a program, from the profiler's trace."""

import collections
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.benchmarks.instructions import Instruction, normalize_name, read_instructions
from fairkd_jax.benchmarks.program import MeasuredProgram

_RUNS = 3


def find_longest_operations(
    program: MeasuredProgram, bytes_per_second: float, count: int
) -> list[dict[str, Any]]:
    """Traces some runs of a program and returns its longest operations.

    Args:
      program: Program that has run before.
      bytes_per_second: Rate of a pass over memory.
      count: Largest number of operations to return.

    Returns:
      The operations in descending order of time. Each has `name`; `from`, its origin in Python;
      `milliseconds` of a run; `share` of the time of all operations; `floor_milliseconds`, the time to move
      its bytes, or None if its instruction is unknown. On a CPU the time is the sum over threads.
    """
    instructions = read_instructions(program.compiled.as_text())
    with tempfile.TemporaryDirectory(prefix="fairkd-profile-") as name:
        with jax.profiler.trace(name):
            program.measure_seconds(_RUNS)
        trace = next(Path(name).rglob("*.xplane.pb"))
        spent = _sum_times(jax.profiler.ProfileData.from_file(str(trace)), instructions)
    total = sum(spent.values())
    rows = []
    for key, nanoseconds in spent.most_common(count):
        instruction = instructions.get(key)
        row: dict[str, Any] = {"name": key, "from": instruction.origin if instruction else ""}
        row |= {"milliseconds": nanoseconds / 1e6 / _RUNS, "share": nanoseconds / total}
        floor = 1e3 * instruction.bytes / bytes_per_second if instruction else None
        rows.append(row | {"floor_milliseconds": floor})
    return rows


def _sum_times(trace: Any, instructions: Mapping[str, Instruction]) -> collections.Counter[str]:
    """Sums nanoseconds by instruction or kernel, over a device's streams or a CPU's threads."""
    devices = [plane for plane in trace.planes if plane.name.startswith("/device:")]
    spent: collections.Counter[str] = collections.Counter()
    for plane in devices or trace.planes:
        for line in plane.lines:
            if devices and not line.name.startswith(("Stream", "XLA Ops")):
                continue
            for event in line.events:
                name = _find_instruction_name(event) if devices else normalize_name(event.name)
                if devices or name in instructions:
                    spent[name] += event.duration_ns
    return spent


def _find_instruction_name(event: Any) -> str:
    """Returns the name of a kernel's instruction, or the kernel's own name if there is no instruction."""
    for key, value in event.stats:
        if key == "hlo_op":
            return normalize_name(str(value))
    return normalize_name(event.name)
