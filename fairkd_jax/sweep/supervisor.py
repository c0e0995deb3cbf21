"""Runs a command in its own process group, and ends the whole group when the worker ends or asks for a stop.

python supervisor.py GRACE STOP RESULT COMMAND [ARGUMENT ...]

STOP and RESULT are file descriptors of two pipes. A stop request is a byte from STOP, or the end of STOP. The
end comes when the process that holds the other side dies for any reason. At the first request the group gets
SIGTERM, so that a training saves its state. SIGKILL follows after GRACE seconds or at a second request.

RESULT gets the exit code of the command, or 128 plus the number of the signal that killed the command.

The supervisor is not a child of the worker, because a Ray worker kills its children at its own end. When the
supervisor itself is killed, the command is killed too.
"""

import contextlib
import ctypes
import math
import os
import select
import signal
import subprocess
import sys
import time

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
_POLL = 0.1  # seconds


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies; on other systems this process stays alive."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


class StopPipe:
    """Reading side of the pipe that carries stop requests."""

    def __init__(self, descriptor: int) -> None:
        """Takes over a pipe.

        Args:
          descriptor: File descriptor of the reading side.
        """
        self._descriptor, self._open = descriptor, True

    def wait_for_request(self, seconds: float) -> bool:
        """Waits for a stop request.

        Args:
          seconds: Longest time to wait.

        Returns:
          Whether a request came in this time. The end of the pipe counts as one request.
        """
        if not self._open:
            time.sleep(seconds)
            return False
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return False
        self._open = bool(os.read(self._descriptor, 1))
        return True


def run_command(command: list[str], stop_pipe: StopPipe, grace: float) -> int:
    """Runs a command to its end or to a stop; afterwards no process of its group is left.

    Args:
      command: Program and its arguments.
      stop_pipe: Pipe that carries stop requests.
      grace: Seconds between SIGTERM and SIGKILL.

    Returns:
      Exit code, or 128 plus the number of the signal that killed the command.
    """
    process = subprocess.Popen(command, process_group=0, preexec_fn=die_with_parent)
    deadline = math.inf

    def send_signal(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    while process.poll() is None:
        if stop_pipe.wait_for_request(_POLL):
            if deadline < math.inf:  # the second request
                deadline = 0.0
            else:
                deadline = time.monotonic() + grace
                send_signal(signal.SIGTERM)
        if time.monotonic() > deadline:
            send_signal(signal.SIGKILL)
    send_signal(signal.SIGKILL)  # for children of the command that are still alive
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def main(arguments: list[str]) -> None:
    """Supervises a command in a child process, so that the caller's process ends at once.

    Args:
      arguments: Arguments of the program, as the module's docstring describes them.
    """
    grace, stop, result, *command = arguments
    if os.fork():
        return
    code = run_command(command, StopPipe(int(stop)), float(grace))
    with contextlib.suppress(BrokenPipeError):  # the worker has died and does not read the result
        os.write(int(result), f"{code}".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
