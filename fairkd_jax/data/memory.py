"""How much memory this process, or a device, may still take."""

from pathlib import Path

import jax


def available_bytes(root: Path = Path("/")) -> int:
    """Returns the bytes of memory that are free, within the limit of the control group; 0 if unknown.

    Args:
      root: where `proc` and `sys` are mounted.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    group = root / "sys/fs/cgroup"
    for limit, usage, statistics, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            used = int((group / usage).read_text()) - _counted(group / statistics, cache)
            free = min(free, int((group / limit).read_text()) - used)
        except (OSError, ValueError):  # another version of control groups, or "max": no limit
            continue
    return max(0, free)


def _counted(statistics: Path, name: str) -> int:
    """A line of a group's statistics: files that were read stay in memory until it is wanted."""
    try:
        lines = [line.split() for line in statistics.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(number) for key, number in lines if key == name), 0)


def available_device_bytes() -> int:
    """Returns the bytes that are free on the fullest of this process's accelerators; 0 on a CPU.

    A CPU has no memory beside the host's, so that nothing is gained by a copy there.
    """
    free = []
    for device in jax.local_devices():
        stats = None if device.platform == "cpu" else device.memory_stats()
        free.append(stats["bytes_limit"] - stats["bytes_in_use"] if stats else 0)
    return max(0, min(free))
