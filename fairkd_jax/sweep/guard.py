"""Runs a command in a process group of its own, and ends all of it when whoever asked for it ends or says so.

python guard.py GRACE CONTROL RESULT COMMAND [ARGUMENT ...]

CONTROL and RESULT are descriptors of pipes. At a byte from CONTROL, and at its end, which comes when the
process at the other end dies in whatever way, the group gets SIGTERM, so that a training saves its state;
SIGKILL follows after GRACE seconds, or at a second such event. RESULT gets the exit code, or 128 and
the number of the signal that killed it. This process is nobody's child: a worker of Ray kills its children
before it ends. When it is killed itself, so is the command.
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
    """Asks Linux to kill this process when its parent dies; elsewhere it lives on."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


class Control:
    """The pipe that tells to stop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._open = descriptor, True

    def asks(self, seconds: float) -> bool:
        """Waits so long for an event."""
        if not self._open:
            time.sleep(seconds)
            return False
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return False
        self._open = bool(os.read(self._descriptor, 1))
        return True


def run(command: list[str], control: Control, grace: float) -> int:
    """Runs the command to its end, or until it is to stop; nothing of its group is left then."""
    process = subprocess.Popen(command, process_group=0, preexec_fn=die_with_parent)
    deadline = math.inf

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    while process.poll() is None:
        if control.asks(_POLL):
            if deadline < math.inf:  # for the second time
                deadline = 0.0
            else:
                deadline = time.monotonic() + grace
                send(signal.SIGTERM)
        if time.monotonic() > deadline:
            send(signal.SIGKILL)
    send(signal.SIGKILL)  # what it left behind
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def main(arguments: list[str]) -> None:
    grace, control, result, *command = arguments
    if os.fork():
        return
    code = run(command, Control(int(control)), float(grace))
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(int(result), f"{code}".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
