"""Which run starts when, and what becomes of those that fail, are killed or are stopped."""

import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fairkd_jax.sweep.planned_runs import PlannedRun
from fairkd_jax.sweep.schedule import SweepError, run_sweep
from fairkd_jax.sweep.status_table import StatusTable
from fairkd_jax.sweep.worker import Job, Outcome
from tests.sweep.conftest import ProcessLauncher

PROGRAM = """
import os, pathlib, signal, sys, time
kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
tries = len(list(folder.glob("try*")))
(folder / f"try{tries}").write_text("")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if kind == "killed_once" and not tries or kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind in ("1", "2"):
    print("program.py: that is wrong")
    sys.exit(int(kind))
if kind == "wait":
    time.sleep(60)
(folder / "complete").write_text("")
"""


class RecordedTable(StatusTable):
    """Status table in a log whose lines the test reads."""

    def __init__(self):
        self.stream = io.StringIO()
        super().__init__(self.stream)

    @property
    def lines(self):
        return [line.partition("  ")[2] for line in self.stream.getvalue().splitlines()[1:]]


@pytest.fixture
def sweep(tmp_path, launcher):
    """Runs a sweep of `name -> kind`, or `(kind, name of its teacher)`."""
    (tmp_path / "program.py").write_text(PROGRAM)
    table = RecordedTable()

    def do(kinds, *, retries=2, parallel=0, launcher=launcher):
        runs, kind_of = [], {}
        for name, kind in kinds.items():
            kind, teacher_name = kind if isinstance(kind, tuple) else (kind, "")
            runs.append(PlannedRun(name, tmp_path / name, {}, [(tmp_path / name, None)], teacher_name))
            kind_of[name] = kind

        def make_job(run):
            if (run.folder / "complete").exists():
                return None
            command = (str(tmp_path / "program.py"), kind_of[run.name], str(run.folder))
            return Job(run.name, str(run.folder), (command,), str(tmp_path), {})

        options = {"retries": retries, "parallel": parallel, "table": table, "poll": 0.05}
        run_sweep(runs, launcher, make_job=make_job, **options)

    do.table, do.folder = table, tmp_path
    return do


def interrupt_when(condition, number=signal.SIGINT):
    """Sends this process a signal as soon as a condition holds."""

    def watch():
        for _ in range(1000):
            if condition():
                os.kill(os.getpid(), number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_teachers_come_before_their_students_and_what_is_complete_is_left(sweep, launcher):
    (sweep.folder / "b").mkdir()
    (sweep.folder / "b" / "complete").write_text("")
    sweep({"teachers/t": "ok", "a": ("ok", "teachers/t"), "b": ("ok", "teachers/t"), "c": "ok"})
    assert launcher.started == ["teachers/t", "c", "a"]
    assert sweep.table.stream.getvalue().startswith(
        "sweep: 3 runs, 1 complete before, 1 teacher to train first\n"
    )
    assert sweep.table.lines[-1] == "4 done"
    again = ProcessLauncher()
    sweep({"teachers/t": "ok", "a": ("ok", "teachers/t"), "b": ("ok", "teachers/t")}, launcher=again)
    assert again.started == []


def test_a_teacher_that_no_student_needs_any_more_is_not_trained(sweep, launcher):
    (sweep.folder / "a").mkdir()
    (sweep.folder / "a" / "complete").write_text("")
    sweep({"teachers/t": "ok", "a": ("ok", "teachers/t")})
    assert launcher.started == []


def test_a_run_that_is_killed_starts_again(sweep, launcher):
    sweep({"a": "killed_once"})
    assert launcher.started == ["a", "a"]
    assert any(line.startswith("a  waiting  retried 1  killed (") for line in sweep.table.lines)
    assert "a  done  retried 1" in sweep.table.lines


def test_only_so_often(sweep, launcher):
    with pytest.raises(SweepError, match="1 of 1 run not complete"):
        sweep({"a": "killed"}, retries=2)
    assert launcher.started == ["a"] * 3


@pytest.mark.parametrize("code", ["1", "2"])
def test_a_mistake_is_not_tried_again(sweep, launcher, code):
    with pytest.raises(SweepError) as caught:
        sweep({"a": code, "b": "ok"})
    assert caught.value.exit_code == 1
    assert sorted(launcher.started) == ["a", "b"]
    assert "a  failed  program.py: that is wrong" in sweep.table.lines
    assert sweep.table.stream.getvalue().splitlines()[-1].endswith(f"({sweep.folder / 'a' / 'sweep.log'})")


def test_the_students_of_a_teacher_that_fails_are_left_out(sweep, launcher):
    with pytest.raises(SweepError, match="2 of 3 runs not complete"):
        sweep({"teachers/t": "2", "a": ("ok", "teachers/t"), "b": "ok"})
    assert sorted(launcher.started) == ["b", "teachers/t"]
    assert "a  left out  its teacher failed: teachers/t" in sweep.table.lines


def test_no_more_run_at_once_than_asked(sweep):
    launcher = ProcessLauncher()
    sweep(dict.fromkeys("abcd", "ok"), parallel=2, launcher=launcher)
    assert launcher.most == 2


def test_a_machine_that_is_lost_costs_a_retry(sweep, launcher):
    thread = threading.Thread(target=lose_first_worker, args=(sweep.folder / "a", launcher))
    thread.start()
    with pytest.raises(SweepError):
        sweep({"a": "wait"}, retries=0)
    thread.join()
    assert "a  failed  worker lost" in sweep.table.lines


def lose_first_worker(folder, launcher):
    while not (folder / "try0").exists():
        time.sleep(0.01)
    next(iter(launcher.workers.values())).kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_all_and_leaves_nothing_running(sweep, number):
    launcher = ProcessLauncher(room=1)
    before = signal.getsignal(number)
    thread = interrupt_when((sweep.folder / "a" / "try0").exists, number)
    with pytest.raises(SweepError, match="start the same command again to continue") as caught:
        sweep({"a": "wait", "b": "wait", "c": ("wait", "a")}, launcher=launcher)
    thread.join()
    assert caught.value.exit_code == 128 + number
    for name in "abc":
        assert f"{name}  stopped" in sweep.table.lines
    assert not (sweep.folder / "b").exists()
    assert "stopping: every run saves its state first" in sweep.table.stream.getvalue()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_it_at_once():
    class Stubborn:
        def __init__(self):
            self.stops = []

        def start(self, job):
            os.kill(os.getpid(), signal.SIGINT)
            return job.name

        def collect_finished(self, handles, seconds):
            if len(self.stops) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return [(handle, Outcome(255)) for handle in handles if len(self.stops) == 2]

        def stop(self, handles, *, at_once):
            self.stops.append((list(handles), at_once))

    launcher, run = Stubborn(), PlannedRun("a", Path("nowhere"), {}, [(Path("nowhere"), None)])
    job = Job("a", "nowhere", (), "", {})
    with pytest.raises(SweepError):
        run_sweep(
            [run], launcher, make_job=lambda _: job, retries=1, parallel=0, table=RecordedTable(), poll=0.0
        )
    assert launcher.stops == [(["a"], False), (["a"], True)]
