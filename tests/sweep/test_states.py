"""How the runs of a sweep are shown: on a terminal, and in a log."""

import io
import json
from pathlib import Path

import pytest

from fairkd_jax.sweep.folders import progress
from fairkd_jax.sweep.plan import Run, plan
from fairkd_jax.sweep.states import DONE, FAILED, RUNNING, Board, Entry, counted
from fairkd_jax.sweep.tasks import LOG
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
def entries(tmp_path):
    names = ["teachers/t", *(f"seed={seed}" for seed in range(20))]
    return [Entry(Run(name, tmp_path / name, {}, [(tmp_path / name, None)])) for name in names]


def test_a_terminal_shows_a_table_that_is_drawn_anew(entries):
    terminal = Terminal()
    board = Board(terminal)
    board.open(entries)
    for entry in entries[:3]:
        entry.state = RUNNING
        board.changed(entry)
        board.draw(entries)
    shown = screen(terminal.getvalue())
    assert shown[0] == "sweep: 20 runs, 1 teacher to train first"
    assert [line.split("  ", 1)[1] for line in shown[1:]] == [
        "3 running, 18 waiting",
        "teachers/t  running",
        "seed=0  running",
        "seed=1  running",
    ]
    entries[0].state, entries[1].state, entries[1].message = DONE, FAILED, "train.py: that is wrong"
    board.changed(entries[0])
    board.changed(entries[1])
    board.draw(entries)
    shown = screen(terminal.getvalue())
    assert [line.split("  ", 1)[1] for line in shown[1:]] == [
        "seed=0  failed  train.py: that is wrong",
        "1 running, 18 waiting, 1 done, 1 failed",
        "seed=1  running",
    ]
    board.close(entries)
    shown = screen(terminal.getvalue())
    assert shown[-2].endswith("1 running, 18 waiting, 1 done, 1 failed")
    assert shown[-1] == f"  seed=0  failed  train.py: that is wrong  ({entries[1].run.folder / LOG})"


def test_a_long_table_is_cut(entries):
    for entry in entries:
        entry.state = RUNNING
    terminal = Terminal()
    Board(terminal).draw(entries)
    shown = screen(terminal.getvalue())
    assert len(shown) == 14
    assert shown[-1] == "  and 9 more"


def test_a_log_has_a_line_for_each_change(entries):
    log = io.StringIO()
    board = Board(log)
    board.open(entries)
    entries[1].state, entries[1].retried = RUNNING, 2
    board.changed(entries[1])
    board.draw(entries)
    assert log.getvalue().splitlines() == [
        "sweep: 20 runs, 1 teacher to train first",
        "0:00:00  seed=0  running  retried 2",
    ]
    assert counted(entries) == "1 running, 20 waiting"


def test_a_run_has_begun_when_its_log_grows(entries):
    entry = entries[1]
    entry.run.folder.mkdir()
    entry.note_log()
    assert not entry.has_begun()
    (entry.run.folder / LOG).write_text("sweep: on a machine\n")
    assert entry.has_begun()
    entry.note_log()
    assert not entry.has_begun()
    with (entry.run.folder / LOG).open("a") as file:
        file.write("stopped at step 3 of 4\n")  # on a machine that was lost
    assert not entry.has_begun()
    with (entry.run.folder / LOG).open("a") as file:
        file.write("sweep: on another\n")
    assert entry.has_begun()


def test_how_far_a_run_is_stands_in_its_folder(tmp_path):
    assert progress(tmp_path) is None
    run = plan(make_config(ROOT / "configs" / "student.py"), {"seed": ["1"]}, {}, tmp_path)[0]
    lines = [{"step": step, "loss": 1.0, "noise": "x" * 40_000} for step in (5, 10)]
    write_run(run.folder, run.students[0][1], lines=lines)
    assert progress(run.folder) == (10, 31)
    entry = Entry(run, RUNNING)
    assert entry.line() == "seed=1  running  step 10 of 31"
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 15})[:5])
    assert progress(Path(run.folder)) is None
