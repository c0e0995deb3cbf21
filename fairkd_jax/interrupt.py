"""Handles Ctrl-C before a program can save its state: prints one line instead of a traceback.

A program must import this module before the heavy libraries. Their imports take seconds, and in this
time Python's own handler would print a traceback, or raise an exception that no code sees.
"""

import _signal  # what `signal` is made of: `signal` itself imports for some milliseconds
import os
import sys

EXIT_CODE = 128 + _signal.SIGINT


def _exit_with_message(number: int, frame: object) -> None:
    """Ends the process at once; every file has a temporary name until all its bytes are there."""
    name = os.path.basename(sys.argv[0])
    line = f"{name}: interrupted; start the same command again to continue from the saved state\n"
    os.write(2, line.encode())
    os._exit(EXIT_CODE)


def install() -> None:
    """Installs the handler of Ctrl-C for a program, which then handles a press that `hold` has kept."""
    _signal.signal(_signal.SIGINT, _exit_with_message)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGINT])


def hold() -> None:
    """Keeps a press of Ctrl-C until `install`, also where the process becomes another program meanwhile."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
