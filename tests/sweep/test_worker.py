"""A job on its machine: commands one after another, and no process that outlives the job."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fairkd_jax.sweep.worker import LOG, Job, Outcome, run_job

PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
kind, *rest = sys.argv[1:]
def save(number, frame):
    print("saving", flush=True)
    if kind != "stubborn":
        sys.exit(143)
signal.signal(signal.SIGTERM, save)
print(kind, *rest, os.environ.get("TOLD"), os.getcwd(), flush=True)
if kind == "exit":
    sys.exit(int(rest[0]))
if kind == "die":
    os.kill(os.getpid(), signal.SIGKILL)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(120)"])
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(120)
"""


@pytest.fixture
def make_job(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def make(*commands, grace=60.0, continue_on_failure=False):
        folder, environment = tmp_path / "run", {"TOLD": "this"}
        programs = tuple((str(tmp_path / "program.py"), *command) for command in commands)
        return Job(
            "run",
            str(folder),
            programs,
            str(tmp_path),
            environment,
            grace,
            continue_on_failure,
        )

    return make


@pytest.fixture
def start(tmp_path, launcher):
    """Starts a job in a worker; returns its handle and the processes that it has started."""

    def started(job):
        handle = launcher.start(job)
        for _ in range(1500):
            assert launcher.collect_finished([handle], 0.02) == []
            with contextlib.suppress(OSError, ValueError):
                pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
                if len(pids) == 2:
                    return handle, pids
        raise AssertionError("it did not start")

    return started


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ends(pids, seconds=30.0):
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_alive, pids))


def log_of(job):
    return Path(job.folder, LOG).read_text().splitlines()


def test_commands_run_one_after_another_into_the_log(make_job, tmp_path):
    job = make_job(("exit", "0"), ("exit", "0"))
    assert run_job(job) == Outcome(0)
    host, first, printed, second, again = log_of(job)
    assert host.endswith(f", process {os.getpid()}")
    assert first == second == f"sweep: {sys.executable} {tmp_path / 'program.py'} exit 0"
    assert printed == again == f"exit 0 this {tmp_path}"
    assert run_job(job) == Outcome(0)
    assert len(log_of(job)) == 10


def test_the_first_failure_ends_it_and_is_told(make_job, tmp_path):
    job = make_job(("exit", "2"), ("exit", "0"))
    assert run_job(job) == Outcome(2, f"exit 2 this {tmp_path}")
    assert len(log_of(job)) == 3


@pytest.mark.parametrize("continue_on_failure", [False, True])
def test_a_signal_ends_it_in_any_case(make_job, continue_on_failure):
    job = make_job(("die",), ("exit", "0"), continue_on_failure=continue_on_failure)
    assert run_job(job) == Outcome(128 + signal.SIGKILL, "SIGKILL")
    assert len(log_of(job)) == 3


def test_a_population_goes_on_with_those_that_are_complete(make_job, tmp_path):
    job = make_job(("exit", "1"), ("exit", "2"), ("exit", "0"), continue_on_failure=True)
    assert run_job(job) == Outcome(1, f"exit 1 this {tmp_path}")
    assert log_of(job)[-1] == f"exit 0 this {tmp_path}"


def test_a_run_that_is_stopped_saves_its_state_first(make_job, start, launcher):
    job = make_job(("wait",))
    handle, pids = start(job)
    launcher.stop([handle], at_once=False)
    assert launcher.collect_finished([handle], 30.0) == [(handle, Outcome(255, "worker lost"))]
    assert log_of(job)[-1] == "saving"
    assert ends(pids, 5.0)  # the worker has waited for it, and for what it had started


def test_a_worker_that_is_killed_takes_its_run_with_it(make_job, start, launcher):
    job = make_job(("wait",))
    handle, pids = start(job)
    launcher.stop([handle], at_once=True)
    assert ends(pids)
    assert log_of(job)[-1] == "saving"


def test_a_run_that_does_not_end_is_killed_after_the_grace(make_job, start, launcher):
    job = make_job(("stubborn",), grace=0.5)
    handle, pids = start(job)
    began = time.monotonic()
    launcher.stop([handle], at_once=False)
    launcher.collect_finished([handle], 30.0)
    assert 0.4 < time.monotonic() - began < 30.0
    assert ends(pids, 5.0)


def test_a_second_stop_ends_it_at_once(make_job, start, launcher):
    job = make_job(("stubborn",))
    handle, pids = start(job)
    launcher.stop([handle], at_once=False)
    for _ in range(1500):
        if log_of(job)[-1] == "saving":
            break
        time.sleep(0.02)
    launcher.stop([handle], at_once=True)
    assert ends(pids)


def test_a_supervisor_that_is_killed_takes_the_command_with_it(make_job, start, launcher):
    job = make_job(("wait",))
    handle, (pid, child) = start(job)
    os.kill(parent_of(pid), signal.SIGKILL)
    assert launcher.collect_finished([handle], 30.0)[0][1].code == 128 + signal.SIGKILL
    assert ends([pid])
    os.kill(child, signal.SIGKILL)  # which nobody is left to end


def test_it_waits_for_another_that_is_still_saving(make_job):
    job = make_job(("exit", "0"))
    Path(job.folder).mkdir()
    descriptor = os.open(job.folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(0.5, os.close, [descriptor])
    began = time.monotonic()
    timer.start()
    assert run_job(job) == Outcome(0)
    assert time.monotonic() - began > 0.4
    timer.join()


def test_what_a_worker_imports_is_light():
    code = "import sys, fairkd_jax.sweep.worker; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"jax", "numpy", "absl"} & set(printed.split())
    assert json.dumps(Job("a", "b", (("c",),), "d", {}))
