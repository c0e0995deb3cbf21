"""The operations of a program that take longest, from the profiler's trace."""

import collections
import re
import tempfile
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.benchmarks.program import Program

_RUNS = 3


def longest(program: Program, count: int = 10) -> list[dict[str, Any]]:
    """Traces some runs of a program.

    Args:
      program: compiled, and run before.
      count: of operations.

    Returns:
      The operations with the most time, most first: `name`, `from` (what it was compiled from),
      `milliseconds` of a run and `share` of all operations' time. On a CPU the time is the sum over threads.
    """
    origins = _origins(program.compiled.as_text())
    with tempfile.TemporaryDirectory(prefix="fairkd-profile-") as name:
        with jax.profiler.trace(name):
            program.time(_RUNS)
        trace = next(Path(name).rglob("*.xplane.pb"))
        spent = _times(jax.profiler.ProfileData.from_file(str(trace)), origins)
    total = sum(spent.values())
    return [
        {
            "name": key,
            "from": origins.get(_plain(key), ""),
            "milliseconds": nanoseconds / 1e6 / _RUNS,
            "share": nanoseconds / total,
        }
        for key, nanoseconds in spent.most_common(count)
    ]


def _plain(name: str) -> str:
    """Kernels are called after instructions, with another sign in between."""
    return name.replace(".", "_")


def _origins(text: str) -> dict[str, str]:
    """By instruction, what Python code it comes from."""
    found = {}
    for line in text.splitlines():
        instruction = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
        if instruction:
            origin = re.search(r'op_name="([^"]*)"', line)
            found[_plain(instruction[1])] = origin[1] if origin else ""
    return found


def _times(trace: Any, origins: dict[str, str]) -> collections.Counter[str]:
    """Nanoseconds by operation: of a device's streams, or of the threads of a CPU."""
    devices = [plane for plane in trace.planes if plane.name.startswith("/device:")]
    spent: collections.Counter[str] = collections.Counter()
    for plane in devices or trace.planes:
        for line in plane.lines:
            if devices and not line.name.startswith(("Stream", "XLA Ops")):
                continue
            for event in line.events:
                if devices or _plain(event.name) in origins:
                    spent[event.name] += event.duration_ns
    return spent
