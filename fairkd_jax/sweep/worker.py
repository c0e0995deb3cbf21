"""Runs the commands of a run on the worker's machine, one after another, and writes their output to a log."""

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
START_MARK = "sweep: on "  # text in front of the machine's name, in the first line of each job
SIGNAL_BASE = 128  # an exit code of at least this value means that a signal killed the command
GRACE = 60.0  # seconds in which a run may save its state after a stop request
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_POLL = 0.2  # seconds
_TAIL = 2**16  # bytes


class Job(NamedTuple):
    """Commands of a run, in the form that a worker receives.

    Attributes:
      name: Name of the run.
      folder: Folder of the run.
      commands: Arguments of Python for each command.
      cwd: Working folder of the commands.
      environment: Variables that the commands get in addition to the variables of the machine.
      grace: Seconds in which the run may save its state after a stop request.
      continue_on_failure: Whether the next commands run after a command has failed: some members of a
        population may be complete although other members diverged.
    """

    name: str
    folder: str
    commands: tuple[tuple[str, ...], ...]
    cwd: str
    environment: Mapping[str, str]
    grace: float = GRACE
    continue_on_failure: bool = False


class Outcome(NamedTuple):
    """Result of a job.

    Attributes:
      code: Exit code of the first command that failed, or 0; from 128 on, a signal killed the command.
      message: Last line of the failed command's log, or the name of the signal.
    """

    code: int
    message: str = ""


def run_job(job: Job) -> Outcome:
    """Runs the commands of a job, and ends the commands when this call is interrupted or its process dies.

    Args:
      job: Commands, and where they run.

    Returns:
      Exit code and message of the first command that failed, or of success.
    """
    if threading.current_thread() is threading.main_thread():
        # Ray stops a worker with SIGINT. Workers ignore SIGINT where a shell started the sweep in background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(job.cwd, job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    with log.open("ab", buffering=0) as file:
        file.write(f"{START_MARK}{socket.gethostname()}, process {os.getpid()}\n".encode())
        _wait_for_folder(folder, job.grace)
        outcome = Outcome(0)
        for arguments in job.commands:
            command = [sys.executable, *arguments]
            file.write(f"sweep: {shlex.join(command)}\n".encode())
            code = _run_command(command, job, file.fileno())
            if code and not outcome.code:
                outcome = Outcome(code, _get_signal_name(code) or _read_last_line(log))
            if code >= SIGNAL_BASE or (code and not job.continue_on_failure):
                break
    return outcome


def _run_command(command: list[str], job: Job, output: int) -> int:
    """Runs a command to its end.

    Args:
      command: Program and its arguments.
      job: Job of the command.
      output: File descriptor of the log.

    Returns:
      Exit code, or 128 plus the number of the signal that killed the command.
    """
    stop_reader, stop_writer = os.pipe()  # the system closes stop_writer when this process dies
    result_reader, result_writer = os.pipe()
    try:
        try:
            arguments = [str(job.grace), str(stop_reader), str(result_writer), *command]
            subprocess.run(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *arguments],
                cwd=job.cwd,
                env={**os.environ, **job.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(stop_reader, result_writer),
                start_new_session=True,  # so that Ctrl-C at a terminal does not reach the supervisor
                check=True,
            )
        finally:
            os.close(stop_reader)
            os.close(result_writer)
        try:
            while not select.select([result_reader], [], [], _POLL)[0]:
                pass  # Python raises a pending interrupt between two selects
        except BaseException:
            os.write(stop_writer, b".")
            os.read(result_reader, 16)  # waits until the command has ended
            raise
        return int(os.read(result_reader, 16) or 128 + signal.SIGKILL)
    finally:
        os.close(stop_writer)
        os.close(result_reader)


def _wait_for_folder(folder: Path, seconds: float) -> None:
    """Waits until no process of this machine trains in a folder: a lost worker may still save its state.

    The lock works on a single machine. A lost process on another machine ends by itself in the same time.

    Args:
      folder: Folder of the run.
      seconds: Longest time to wait.
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


def _get_signal_name(code: int) -> str:
    """Returns the name of the signal behind an exit code; empty where no signal killed the command."""
    try:
        return signal.Signals(code - SIGNAL_BASE).name
    except ValueError:
        return ""


def _read_last_line(log: Path) -> str:
    """Reads the last line of a log that is not blank."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
