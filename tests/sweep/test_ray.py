"""Jobs as Ray tasks, where Ray is installed."""

import contextlib
import importlib.util
import os
import re
import time

import pytest

from fairkd_jax.sweep.ray_runner import RayLauncher
from fairkd_jax.sweep.worker import LOG, Job, Outcome
from tests.sweep.test_worker import PROGRAM, ends

# Not imported here: it reads its settings then.
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.filterwarnings("default"),  # of Ray's own
]


@pytest.fixture(scope="module")
def launcher():
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    with RayLauncher(cpus=1, gpus=None, resources={}) as launcher:
        yield launcher
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def make_job(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def make(*command):
        programs = ((str(tmp_path / "program.py"), *command),)
        return Job("run", str(tmp_path / "run"), programs, str(tmp_path), {"TOLD": "this"}, 30.0)

    make.folder = tmp_path
    return make


def wait(launcher, handle, seconds=60.0):
    """How it ended."""
    ((same, outcome),) = launcher.collect_finished([handle], seconds)
    assert same == handle
    return outcome


def started(launcher, handle, folder):
    """The processes of a job that waits, once they are there."""
    for _ in range(600):
        with contextlib.suppress(OSError, ValueError):
            pid, child = map(int, (folder / "pids").read_text().split())
            return pid, child
        assert launcher.collect_finished([handle], 0.1) == []
    raise AssertionError("it did not start")


def test_a_job_ends_as_its_command_does(launcher, make_job):
    assert wait(launcher, launcher.start(make_job("exit", "0"))) == Outcome(0)
    told = f"exit 2 this {make_job.folder}"
    assert wait(launcher, launcher.start(make_job("exit", "2"))) == Outcome(2, told)
    assert wait(launcher, launcher.start(make_job("die"))).code == 137


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_stopped_saves_its_state_and_leaves_nothing(launcher, make_job, at_once):
    handle = launcher.start(make_job("wait"))
    processes = started(launcher, handle, make_job.folder)
    launcher.stop([handle], at_once=at_once)
    assert wait(launcher, handle).code
    assert ends(processes)
    assert (make_job.folder / "run" / LOG).read_text().endswith("saving\n")


def test_a_worker_that_dies_is_told_and_leaves_nothing(launcher, make_job):
    handle = launcher.start(make_job("wait"))
    processes = started(launcher, handle, make_job.folder)
    worker = re.search("process ([0-9]+)", (make_job.folder / "run" / LOG).read_text())
    os.kill(int(worker[1]), 9)
    assert wait(launcher, handle).code == 255
    assert ends(processes)


def test_what_waits_for_room_can_be_stopped_too(launcher, make_job):
    folder = make_job.folder
    jobs = [make_job("wait")._replace(cwd=str(folder), folder=str(folder / f"run{n}")) for n in range(3)]
    handles = [launcher.start(job) for job in jobs]
    began = time.monotonic()
    while not launcher.collect_finished(handles, 0.1) and time.monotonic() - began < 3.0:
        pass
    launcher.stop(handles, at_once=False)
    left = set(handles)
    while left and time.monotonic() - began < 30.0:
        left -= {handle for handle, _ in launcher.collect_finished(list(left), 1.0)}
    assert not left
