"""Settings of the C library for XLA's buffers on a CPU: large pages, and memory that the process keeps.

XLA allocates new buffers in each step, and the C library returns the buffers to the system after the step.
With pages of 4 KiB, the system then fills some hundred thousand pages in each step. A virtual machine may
even return the pages to its host, so that some steps take 0.9 s instead of 0.5 s.

Measured on 2 cores: a training step of EfficientNet-B0 at 128 pixels took 0.44 s before, and 0.31 s with
large pages. With memory that the process keeps, all steps take about the same time: of 45 steps, 10 were slow
before and none is slow now.

The price is memory. The buffers of a step seldom fit into the memory of the last step, because small buffers
now lie there. Also, two steps run at a time. A step took up to 2.6 times the memory that XLA had planned.
Where this is too much, `return_free_memory` makes the C library return each large buffer to the system. The
step then takes the planned memory.
"""

import ctypes
import os
import sys

VARIABLE = "GLIBC_TUNABLES"
SETTING = ":".join(
    f"glibc.malloc.{name}"
    for name in ("hugetlb=1", "mmap_max=0", "trim_threshold=1099511627776", "arena_max=1")
)
_MMAP_THRESHOLD, _MMAP_MAX = -3, -4  # constants of malloc.h


def tune() -> None:
    """Starts the program again with these settings, because the C library reads settings at a start only.

    Does nothing where the user has set GLIBC_TUNABLES, or on a system other than Linux. Other C libraries,
    and systems without large pages, ignore the settings.
    """
    if not sys.platform.startswith("linux") or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = SETTING
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def return_free_memory() -> None:
    """Makes the C library return free memory now, and large buffers as soon as they are freed.

    Also returns the pages of free gaps between buffers in use. A later buffer that fits into a gap fills the
    gap again, and the gap then stays filled. Apart from such gaps, a step takes the memory that XLA has
    planned. The system must fill new pages in each step, which makes a step 5 to 10 % slower (measured on
    2 cores).

    Does nothing with a C library other than GNU's.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.mallopt(_MMAP_MAX, 65536)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        library.malloc_trim(0)
