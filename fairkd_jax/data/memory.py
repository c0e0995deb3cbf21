"""How much memory this process may still take."""

from pathlib import Path


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
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int((group / limit).read_text()) - int((group / usage).read_text()))
        except (OSError, ValueError):  # another version of control groups, or "max": no limit
            continue
    return max(0, free)
