"""Functions that read the free memory of the host and of the devices."""

from pathlib import Path

import jax


def read_available_bytes(root: Path = Path("/")) -> int:
    """Reads the free memory of the host in bytes, within the limit of the control group; 0 if unknown.

    Args:
      root: Folder in which `proc` and `sys` are mounted.
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
            used = int((group / usage).read_text()) - _read_statistic(group / statistics, cache)
            free = min(free, int((group / limit).read_text()) - used)
        except (OSError, ValueError):  # another version of control groups, or "max", which means no limit
            continue
    return max(0, free)


def _read_statistic(statistics: Path, name: str) -> int:
    """Reads the number in a line of a control group's statistics; 0 if there is no such line.

    The number of interest is the file cache. The kernel frees the cache when a process needs the memory.
    """
    try:
        lines = [line.split() for line in statistics.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(number) for key, number in lines if key == name), 0)


def read_available_device_bytes() -> int:
    """Reads the free bytes of this process's accelerator with the least free memory; 0 on a CPU.

    A CPU device uses the host's memory, so a copy on the device has no benefit.
    """
    free = []
    for device in jax.local_devices():
        stats = None if device.platform == "cpu" else device.memory_stats()
        free.append(stats["bytes_limit"] - stats["bytes_in_use"] if stats else 0)
    return max(0, min(free))
