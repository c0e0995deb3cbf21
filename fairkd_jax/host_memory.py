"""How the C library hands out memory for XLA's buffers on a CPU: in large pages, and kept once it is there.

XLA allocates the buffers of each step anew, and the C library gives them back to the system after it. With
pages of 4 KiB the system fills them in some hundred thousand pieces a step, and a virtual machine may even
give them back to its host, so that a step now and then takes 0.9 s instead of 0.5 s. On 2 cores a training
step of EfficientNet-B0 at 128 pixels took 0.44 s before and 0.31 s with large pages; memory that is kept
makes its times even (of 45 steps 10 were slow before, none is now). The C library reads the settings when a
process starts, so that the program starts once more.

The price is room. A step's buffers seldom fit where the last one's were, as something small lies there now,
and two steps are under way at a time: up to 2.6 times XLA's plan of a step was taken. Where that is too
much, `return_freed` has each large buffer given back to the system; the plan then holds.
"""

import ctypes
import os
import sys

VARIABLE = "GLIBC_TUNABLES"
SETTING = ":".join(
    f"glibc.malloc.{name}"
    for name in ("hugetlb=1", "mmap_max=0", "trim_threshold=1099511627776", "arena_max=1")
)
_MMAP_THRESHOLD, _MMAP_MAX = -3, -4  # of malloc.h


def tune(module: str) -> None:
    """Starts the program anew with these settings, where `module` is the program and nobody has set anything.

    Other C libraries, and systems that allow no large pages, ignore what they do not know.
    """
    if module != "__main__" or not sys.platform.startswith("linux") or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = SETTING
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def return_freed() -> None:
    """Has the C library give memory back from now on: what is free at once, and large buffers when freed.

    Holes among what is in use are emptied; a buffer that fits one still fills it, and leaves it filled.
    Beside that a step takes what XLA has planned, but its pages must be filled anew (5 to 10 % slower, on
    2 cores).
    Libraries that are not GNU's keep their own ways.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.mallopt(_MMAP_MAX, 65536)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        library.malloc_trim(0)
