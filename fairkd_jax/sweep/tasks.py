"""What one task of a sweep does on its machine: a run's commands, one after another, into the run's log."""

import contextlib
import fcntl
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LOG = "sweep.log"
BEGUN = "sweep: on "  # in front of the machine's name, where a task begins
SIGNALLED = 128  # exit codes from here on are those of a signal
GRACE = 60.0  # seconds in which a run that is stopped may save its state
_GUARD = Path(__file__).with_name("guard.py")
_POLL = 0.2
_TAIL = 2**16  # bytes


class Job(NamedTuple):
    """What is sent to a machine.

    Attributes:
      name: of the run.
      folder: of the run.
      commands: programs of the repository with their arguments.
      root: the repository's folder.
      cwd: where the commands run.
      environment: variables that they get beside those of the machine.
      grace: seconds in which a run that is stopped may save its state.
      goes_on: whether the other commands run where one fails: members of a population may be complete though
        others diverged.
    """

    name: str
    folder: str
    commands: tuple[tuple[str, ...], ...]
    root: str
    cwd: str
    environment: Mapping[str, str]
    grace: float = GRACE
    goes_on: bool = False


class Outcome(NamedTuple):
    """How a task ended.

    Attributes:
      code: the exit code of the first command that failed, or 0; from 128 on, a signal killed or stopped it.
      message: the last line of that command's log, or which signal killed it.
    """

    code: int
    message: str = ""


def run_job(job: Job) -> Outcome:
    """Runs the commands of a job; whatever ends this call ends them too."""
    if threading.current_thread() is threading.main_thread():
        # What stops a worker is an interrupt, which a sweep started in a shell's background has them ignore.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(job.cwd, job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    with log.open("ab", buffering=0) as file:
        file.write(f"{BEGUN}{socket.gethostname()}, process {os.getpid()}\n".encode())
        _wait_until_free(folder, job.grace)
        outcome = Outcome(0)
        for program, *arguments in job.commands:
            command = [sys.executable, str(Path(job.root, program)), *arguments]
            file.write(f"sweep: {shlex.join(command)}\n".encode())
            code = _run(command, job, file.fileno())
            if code and not outcome.code:
                outcome = Outcome(code, _killed_by(code) or _last_line(log))
            if code >= SIGNALLED or (code and not job.goes_on):
                break
    return outcome


def _run(command: list[str], job: Job, output: int) -> int:
    """Runs a command to its end; its exit code, or 128 and the number of the signal that killed it."""
    told, control = os.pipe()  # closes when this process dies
    result, answer = os.pipe()
    try:
        try:
            subprocess.run(
                [sys.executable, "-I", "-S", str(_GUARD), str(job.grace), str(told), str(answer), *command],
                cwd=job.cwd,
                env={**os.environ, **job.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(told, answer),
                start_new_session=True,  # Ctrl-C at a terminal is not for it
                check=True,
            )
        finally:
            os.close(told)
            os.close(answer)
        try:
            while not select.select([result], [], [], _POLL)[0]:
                pass  # what interrupts this comes through here
        except BaseException:
            os.write(control, b".")
            os.read(result, 16)  # until it has ended
            raise
        return int(os.read(result, 16) or 128 + signal.SIGKILL)
    finally:
        os.close(control)
        os.close(result)


def _wait_until_free(folder: Path, seconds: float) -> None:
    """Waits until nobody of this machine trains in a folder: a worker that was lost may be saving its state.

    The lock is not seen from another machine, where what was lost ends by itself within the same time.
    """
    deadline = time.monotonic() + seconds
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_POLL)
    finally:
        os.close(descriptor)


def _killed_by(code: int) -> str:
    try:
        return signal.Signals(code - SIGNALLED).name
    except ValueError:
        return ""


def _last_line(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
