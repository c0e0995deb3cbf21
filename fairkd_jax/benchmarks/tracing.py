"""The operations of a program that take longest, from the profiler's trace."""

import collections
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.benchmarks.instructions import Instruction, plain_name, read_instructions
from fairkd_jax.benchmarks.program import Program

_RUNS = 3


def longest(program: Program, bytes_per_second: float, count: int) -> list[dict[str, Any]]:
    """Traces some runs of a program.

    Args:
      program: compiled, and run before.
      bytes_per_second: what a pass over memory reaches.
      count: of operations.

    Returns:
      The operations with the most time, most first: `name`; `from`, what it was compiled from; `milliseconds`
      of a run; `share` of all operations' time; `floor_milliseconds`, of the bytes that it reads and writes,
      None where its instruction is not known. On a CPU the time is the sum over threads.
    """
    instructions = read_instructions(program.compiled.as_text())
    with tempfile.TemporaryDirectory(prefix="fairkd-profile-") as name:
        with jax.profiler.trace(name):
            program.time(_RUNS)
        trace = next(Path(name).rglob("*.xplane.pb"))
        spent = _times(jax.profiler.ProfileData.from_file(str(trace)), instructions)
    total = sum(spent.values())
    rows = []
    for key, nanoseconds in spent.most_common(count):
        instruction = instructions.get(key)
        row: dict[str, Any] = {"name": key, "from": instruction.origin if instruction else ""}
        row |= {"milliseconds": nanoseconds / 1e6 / _RUNS, "share": nanoseconds / total}
        floor = 1e3 * instruction.bytes / bytes_per_second if instruction else None
        rows.append(row | {"floor_milliseconds": floor})
    return rows


def _times(trace: Any, instructions: Mapping[str, Instruction]) -> collections.Counter[str]:
    """Nanoseconds by instruction, or by kernel: of a device's streams, or of the threads of a CPU."""
    devices = [plane for plane in trace.planes if plane.name.startswith("/device:")]
    spent: collections.Counter[str] = collections.Counter()
    for plane in devices or trace.planes:
        for line in plane.lines:
            if devices and not line.name.startswith(("Stream", "XLA Ops")):
                continue
            for event in line.events:
                name = _instruction(event) if devices else plain_name(event.name)
                if devices or name in instructions:
                    spent[name] += event.duration_ns
    return spent


def _instruction(event: Any) -> str:
    """A kernel's instruction, where the trace names it: a library's kernel has a name of its own."""
    for key, value in event.stats:
        if key == "hlo_op":
            return plain_name(str(value))
    return plain_name(event.name)
