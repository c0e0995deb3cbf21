"""Status of the runs of a sweep, on a terminal and in a log."""

import io
import json
from pathlib import Path

import pytest

from fairkd_jax.runs.status import find_progress
from fairkd_jax.sweep.planned_runs import PlannedRun, plan_runs
from fairkd_jax.sweep.status_table import (
    DONE,
    FAILED,
    RUNNING,
    PointStatus,
    StatusTable,
    format_status_counts,
)
from fairkd_jax.sweep.worker import LOG
from tests.sweep.conftest import ROOT, make_config, write_run


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(written):
    """What a terminal shows after it has been written to."""
    lines = [""]
    while written:
        if written.startswith("\x1b["):
            number, letter = written[2:].lstrip("0123456789"), ""
            count = int(written[2 : len(written) - len(number)] or 1)
            letter, written = number[0], number[1:]
            if letter == "F":
                place = len(lines) - 1 - count
            else:
                assert letter == "J"
                lines = [*lines[:place], ""]
        else:
            character, written = written[0], written[1:]
            if character == "\n":
                lines.append("")
            else:
                lines[-1] += character
    return lines[:-1]


@pytest.fixture
def points(tmp_path):
    names = ["teachers/t", *(f"seed={seed}" for seed in range(20))]
    return [PointStatus(PlannedRun(name, tmp_path / name, {}, [(tmp_path / name, None)])) for name in names]


def test_a_terminal_shows_a_table_that_is_drawn_again(points):
    terminal = Terminal()
    table = StatusTable(terminal)
    table.print_plan(points)
    for point in points[:3]:
        point.status = RUNNING
        table.report_change(point)
        table.draw(points)
    shown = screen(terminal.getvalue())
    assert shown[0] == "sweep: 20 runs, 1 teacher to train first"
    assert [line.split("  ", 1)[1] for line in shown[1:]] == [
        "3 running, 18 waiting",
        "teachers/t  running",
        "seed=0  running",
        "seed=1  running",
    ]
    points[0].status, points[1].status, points[1].message = DONE, FAILED, "train.py: that is wrong"
    table.report_change(points[0])
    table.report_change(points[1])
    table.draw(points)
    shown = screen(terminal.getvalue())
    assert [line.split("  ", 1)[1] for line in shown[1:]] == [
        "seed=0  failed  train.py: that is wrong",
        "1 running, 18 waiting, 1 done, 1 failed",
        "seed=1  running",
    ]
    table.print_result(points)
    shown = screen(terminal.getvalue())
    assert shown[-2].endswith("1 running, 18 waiting, 1 done, 1 failed")
    assert shown[-1] == f"  seed=0  failed  train.py: that is wrong  ({points[1].run.folder / LOG})"


def test_a_long_table_is_cut(points):
    for point in points:
        point.status = RUNNING
    terminal = Terminal()
    StatusTable(terminal).draw(points)
    shown = screen(terminal.getvalue())
    assert len(shown) == 14
    assert shown[-1] == "  and 9 more"


def test_a_log_has_a_line_for_each_change(points):
    log = io.StringIO()
    table = StatusTable(log)
    table.print_plan(points)
    points[1].status, points[1].num_retries = RUNNING, 2
    table.report_change(points[1])
    table.draw(points)
    assert log.getvalue().splitlines() == [
        "sweep: 20 runs, 1 teacher to train first",
        "0:00:00  seed=0  running  retried 2",
    ]
    assert format_status_counts(points) == "1 running, 20 waiting"


def test_a_run_has_begun_when_its_log_grows(points):
    point = points[1]
    point.run.folder.mkdir()
    point.record_log_size()
    assert not point.has_started()
    (point.run.folder / LOG).write_text("sweep: on a machine\n")
    assert point.has_started()
    point.record_log_size()
    assert not point.has_started()
    with (point.run.folder / LOG).open("a") as file:
        file.write("stopped at step 3 of 4\n")  # on a machine that was lost
    assert not point.has_started()
    with (point.run.folder / LOG).open("a") as file:
        file.write("sweep: on another\n")
    assert point.has_started()


def test_how_far_a_run_is_stands_in_its_folder(tmp_path):
    assert find_progress(tmp_path) is None
    run = plan_runs(
        make_config(ROOT / "configs" / "student.py"), {"seed": ["1"]}, {}, tmp_path, with_data=False
    )[0]
    lines = [{"step": step, "loss": 1.0, "noise": "x" * 40_000} for step in (5, 10)]
    write_run(run.folder, run.students[0][1], lines=lines)
    assert find_progress(run.folder) == (10, 31)
    point = PointStatus(run, RUNNING)
    assert point.format_line() == "seed=1  running  step 10 of 31"
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 15})[:5])
    assert find_progress(Path(run.folder)) is None
