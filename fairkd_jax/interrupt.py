"""Ctrl-C before a program can save anything: one line, from the first moment on.

Import it before the heavy libraries, whose imports take seconds, in which Python's own handler would print a
traceback or raise where the exception is lost.
"""

import os
import signal
import sys

EXIT_CODE = 128 + signal.SIGINT


def _end(number: int, frame: object) -> None:
    """Ends at once: what is written, is written under another name and renamed."""
    line = f"{os.path.basename(sys.argv[0])}: interrupted; the same command goes on from what was saved\n"
    os.write(2, line.encode())
    os._exit(EXIT_CODE)


def install(module: str) -> None:
    """Makes the process end with one line at Ctrl-C, where `module` is the program that it runs."""
    if module == "__main__":
        signal.signal(signal.SIGINT, _end)
