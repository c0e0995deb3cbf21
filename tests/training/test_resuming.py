"""Whole runs on digits that stop early: how they go on, and what they keep."""

import itertools
import shutil
import signal

import jax
import numpy as np
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.training import Diverged, Stopped, loop, train
from fairkd_jax.training.student_log import StudentLog
from tests.training.runs import CLOCKS, ONE, last_student, lines_of

pytestmark = pytest.mark.usefixtures("built_once")


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to train in."""
    return shutil.copytree(finished, tmp_path / "copied")


def test_a_finished_run_says_so_and_changes_nothing(copied, make_config, capsys):
    before = (copied / "metrics.jsonl").read_bytes()
    train(make_config(), copied, devices=ONE)
    assert "this run is complete, 8 steps" in capsys.readouterr().out
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_a_changed_config_is_refused_with_the_keys(copied, make_config):
    changed = make_config(optimizer__learning_rate=0.1, seed=3)
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate \(was 0\.003, now 0\.1\), seed"):
        train(changed, copied, devices=ONE)
    with pytest.raises(UsageError, match=r"epochs \(was 2, now 1\)"):
        train(make_config(epochs=1), copied, devices=ONE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_end(number, finished, make_config, tmp_path, monkeypatch):
    reads = []

    def read(tree):
        reads.append(tree)
        if len(reads) == 5:
            signal.raise_signal(number)
        return jax.device_get(tree)

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(Stopped, match="stopped at step 5 of 8; the same command") as stopped:
        train(make_config(), tmp_path / "run", devices=ONE)
    assert stopped.value.exit_code == 128 + number
    train(make_config(), tmp_path / "run", devices=ONE)
    # One read from the device for each step, whoever made it.
    assert len(reads) == 8
    step, resumed = last_student(tmp_path / "run")
    assert step == 8
    jax.tree.map(np.testing.assert_array_equal, resumed, last_student(finished)[1])
    # Also the report after the stop, of steps before and after it; but for the clock.
    assert timeless(tmp_path / "run") == timeless(finished)


def timeless(workdir):
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines_of(workdir)]


def test_a_killed_run_goes_on_from_its_last_checkpoint(finished, make_config, tmp_path, monkeypatch, capsys):
    config = make_config(checkpoint_every_steps=3)

    class Killed(Exception):
        pass

    reads = itertools.count()

    def read(tree):
        if next(reads) == 4:
            raise Killed
        return jax.device_get(tree)

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(Killed):
        train(config, tmp_path / "run", devices=ONE)
    monkeypatch.undo()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a line that the kill cut short
    assert Checkpoints(tmp_path / "run").last_step() == 3
    capsys.readouterr()
    train(config, tmp_path / "run", devices=ONE)
    assert "going on from step 3 of 8" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, last_student(tmp_path / "run")[1], last_student(finished)[1])
    assert timeless(tmp_path / "run") == timeless(finished)


def test_a_checkpoint_of_an_earlier_version_has_no_sums_of_metrics(copied):
    folder = copied / "checkpoints" / "last" / "8"
    log = StudentLog(copied, Checkpoints(copied), [], np.ones((2, 10)), None)
    log.resume(8)
    (folder / "SHA256SUMS").unlink()
    for odd in ('{"sums": 5, "counts": 0}', '{"sums": {"loss": [1]}, "counts": []}', "[1]", "{"):
        (folder / "meter" / "metadata").write_text(odd)
        with pytest.raises(UsageError, match=r"meter|checkpoint"):
            log.resume(8)
    shutil.rmtree(folder / "meter")
    log.resume(8)


def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(
    finished, make_config, tmp_path, monkeypatch, caplog
):
    changes = {"checkpoint_every_steps": 3, "checkpoints__keep": 2}
    reads = itertools.count(1)

    def read(tree):
        if next(reads) == 7:
            raise MemoryError  # as sudden as a kill
        return jax.device_get(tree)

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(MemoryError):
        train(make_config(**changes), tmp_path / "run", devices=ONE)
    monkeypatch.undo()
    last = tmp_path / "run" / "checkpoints" / "last"
    assert Checkpoints(tmp_path / "run").steps() == {5, 6}  # a validation saves step 5
    (last / "6" / "state" / "manifest.ocdbt").write_bytes(b"")
    (last / "7").mkdir()
    train(make_config(**changes, checkpoints__keep_every_epochs=1), tmp_path / "run", devices=ONE)
    warnings = [line for line in caplog.messages if line.endswith("goes on from step 5 instead")]
    assert [str(step) in line for step, line in zip((7, 6), warnings, strict=True)] == [True, True]
    assert Checkpoints(tmp_path / "run").steps() == {5, 6, 8}  # 5 ends an epoch
    jax.tree.map(np.testing.assert_array_equal, last_student(tmp_path / "run")[1], last_student(finished)[1])
    assert [line["step"] for line in lines_of(tmp_path / "run") if "loss" in line] == [2, 4, 6, 8]


def test_training_can_be_made_longer(make_config, tmp_path):
    train(make_config(epochs=1), tmp_path, devices=ONE)
    train(make_config(epochs=2, log_every_steps=1), tmp_path, devices=ONE)
    assert Checkpoints(tmp_path).last_step() == 8
    with pytest.raises(UsageError, match="epochs"):
        train(make_config(epochs=1), tmp_path, devices=ONE)


def test_a_loss_that_is_not_finite_stops_the_run(make_config, tmp_path):
    config = make_config(optimizer__learning_rate=1e30, optimizer__name="sgd", optimizer__clip_norm=0.0)
    with pytest.raises(Diverged, match=r"(loss|norm).* not finite at step \d"):
        train(config, tmp_path, devices=ONE)
    assert not Checkpoints(tmp_path).last_step()


def test_a_state_that_an_update_spoilt_is_not_saved(make_config, tmp_path):
    """The loss of a step is taken before its update: the update itself must be looked at as well."""
    changes = {"optimizer__learning_rate": 1e38, "optimizer__name": "sgd", "optimizer__clip_norm": 0.0}
    config = make_config(checkpoint_every_steps=1, optimizer__warmup_epochs=0.0, **changes)
    with pytest.raises(Diverged, match="student/parameter_norm not finite at step 1; there was no"):
        train(config, tmp_path, devices=ONE)
    assert Checkpoints(tmp_path).last_step() is Checkpoints(tmp_path).best_step() is None


def test_a_stop_at_the_last_step_is_not_forgotten(make_config, tmp_path, monkeypatch):
    reads = itertools.count(1)

    def read(tree):
        if next(reads) == 8:
            signal.raise_signal(signal.SIGTERM)
        return jax.device_get(tree)

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(Stopped, match="stopped at step 8 of 8"):
        train(make_config(), tmp_path, devices=ONE)
    assert Checkpoints(tmp_path).last_step() == 8


def test_divergence_keeps_the_last_good_checkpoint(make_config, tmp_path, monkeypatch):
    reads = itertools.count()

    def read(tree):
        tree = jax.device_get(tree)
        return tree | {"cross_entropy/loss": (np.nan, 1.0)} if next(reads) == 4 else tree

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(
        Diverged, match="cross_entropy/loss not finite at step 5; the checkpoint of step 3 is kept"
    ):
        train(make_config(checkpoint_every_steps=3), tmp_path, devices=ONE)
    assert Checkpoints(tmp_path).last_step() == 3


@pytest.mark.parametrize("damage", ["state emptied", "item absent", "no folder", "scores"])
def test_a_damaged_checkpoint_is_one_line(finished, make_config, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    checkpoints = run / "checkpoints"
    if damage == "state emptied":
        for file in (checkpoints / "last" / "8" / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    elif damage == "item absent":
        shutil.rmtree(checkpoints / "last" / "8" / "state")
    elif damage == "no folder":
        shutil.rmtree(checkpoints)
        checkpoints.write_text("")
    else:
        (checkpoints / "best" / str(Checkpoints(run).best_step()) / "scores" / "metadata").write_text("{")
    with pytest.raises(UsageError, match=r"checkpoint.* or choose another --workdir") as error:
        train(make_config(epochs=3), run, devices=ONE)
    assert "\n" not in str(error.value)


def test_the_best_checkpoint_is_never_ahead_of_the_last(make_config, tmp_path, monkeypatch):
    """Else a run that goes on with another schedule could keep a student that it never had."""
    reads = itertools.count(1)

    def read(tree):
        if next(reads) == 7:
            raise MemoryError  # as sudden as a kill: nothing is saved on the way out
        return jax.device_get(tree)

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(MemoryError):
        train(make_config(checkpoint_every_steps=100), tmp_path / "run", devices=ONE)
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.best_step() == checkpoints.last_step() > 0
