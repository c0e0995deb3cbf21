"""What a training prints: a bar on a terminal, lines in a log, and the log of its folder."""

import io
import logging as standard_logging
from types import SimpleNamespace

import pytest
from absl import logging as absl_logging

from fairkd_jax.progress import Progress
from fairkd_jax.run_log import keep_log, say, write_log
from fairkd_jax.training.loop import _Loop


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_lines_in_a_log_and_a_bar_on_a_terminal():
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        progress = Progress("student", step=10, total_steps=40, batch_size=8, stream=stream)
        progress.advance(11)
        rate = progress.measure_rate(11)
        assert rate == 0  # the clock starts here, after what was compiled
        progress.report(11, rate, {"loss": 0.7})
        progress.advance(20)
        rate = progress.measure_rate(20)
        assert rate > 0
        progress.report(20, rate, {"loss": 0.5})
        progress.note("validation at step 20")
        progress.close()
    lines = log.getvalue().splitlines()
    assert lines[0] == "student: step 11/40  loss 0.7"
    assert lines[1].startswith("student: step 20/40  ")
    assert "images/s  loss 0.5  " in lines[1]
    assert lines[1].endswith("left")
    assert lines[2] == "student: validation at step 20"
    assert "\r" not in log.getvalue()
    assert "20/40" in terminal.getvalue()
    assert "student: validation at step 20" in terminal.getvalue()


def test_the_bar_begins_after_the_compilation_and_names_the_epoch(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    progress = Progress(
        "student", step=10, total_steps=40, batch_size=8, steps_per_epoch=9.5, stream=terminal
    )
    assert terminal.getvalue() == ""
    progress.advance(11)
    progress.report(11, 0.0, {"loss": 0.7, "student/accuracy": 0.5, "a_name_with/no_room_for_it": 1.0})
    progress.advance(39)
    # A line of the log takes the bar away first, so that they never stand in one line.
    absl_logging.get_absl_handler().filter(standard_logging.makeLogRecord({}))
    assert terminal.getvalue().endswith("\r")
    progress.close()
    assert "student epoch 2/4" in terminal.getvalue()
    assert "student epoch 4/4" in terminal.getvalue()
    assert "loss 0.7" in terminal.getvalue()
    assert "no_room" not in terminal.getvalue()
    assert len(absl_logging.get_absl_handler().filters) == len({*absl_logging.get_absl_handler().filters})


def test_the_log_of_a_run_has_what_is_said(tmp_path, capsys):
    outer, inner = tmp_path / "log.txt", tmp_path / "teacher" / "log.txt"
    with keep_log(outer):
        say("first")
        assert not outer.exists()  # a run that is refused now leaves nothing
        inner.parent.mkdir()
        with keep_log(inner):
            (inner.parent / "config.json").touch()
            absl_logging.warning("read %d images", 3)
            absl_logging.get_absl_logger().info("of another package")
            write_log("step 1")
        say("last")
    with keep_log(outer):
        say("again")
    say("not a line of it")
    lines = [line.split("  ", 1)[1] for line in outer.read_text().splitlines()]
    assert lines == ["first", "read 3 images", "step 1", "last", "again"]
    assert [line.split("  ", 1)[1] for line in inner.read_text().splitlines()] == ["read 3 images", "step 1"]
    assert capsys.readouterr().out.splitlines() == ["first", "last", "again", "not a line of it"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "log.txt").mkdir()
    with keep_log(tmp_path / "log.txt"):
        write_log("lost")
    with keep_log(tmp_path / "absent" / "log.txt"):
        write_log("lost")


@pytest.mark.parametrize("members", [0, 3])
def test_a_validation_is_one_line_under_80_columns(members):
    notes = []
    program = SimpleNamespace(members=members)
    progress = SimpleNamespace(note=lambda text: notes.append(f"student: {text}"))
    own = SimpleNamespace(program=program, progress=progress, step=12345)
    own._make_prefix = "member {}: ".format
    numbers = {"accuracy": 0.4, "mean_abs_disparity": 0.25, "corrected_mean_abs_disparity": -0.125}
    found = [numbers | {"accuracy": 0.4 + 0.1 * i} for i in range(max(1, members))]
    _Loop._report_validation(own, found, 2, {1: ["collapse"]})
    line, warning = notes
    assert len(line) < 80
    if members:
        assert line == "student: val at 12345: accuracy 0.40 to 0.60, corrected -0.12 to -0.12 (2 best)"
    else:
        expected = "accuracy 0.400, disparity 0.250, corrected -0.125 (best)"
        assert line == f"student: val at 12345: {expected}"
    assert warning == "student: member 1: warning: collapse"
