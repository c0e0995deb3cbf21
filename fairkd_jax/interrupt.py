"""Handles Ctrl-C before a program can save its state: prints one line instead of a traceback.

A program must import this module before the heavy libraries. Their imports take seconds, and in this
time Python's own handler would print a traceback, or raise an exception that no code sees.
"""

import os
import signal
import sys

EXIT_CODE = 128 + signal.SIGINT


def _exit_with_message(number: int, frame: object) -> None:
    """Ends the process at once; every file has a temporary name until all its bytes are there."""
    name = os.path.basename(sys.argv[0])
    line = f"{name}: interrupted; start the same command again to continue from the saved state\n"
    os.write(2, line.encode())
    os._exit(EXIT_CODE)


def install() -> None:
    """Installs the handler of Ctrl-C for a program."""
    signal.signal(signal.SIGINT, _exit_with_message)
