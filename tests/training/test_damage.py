"""A bit that has flipped in a file of a run is found before the file is used, and the file is named."""

import errno
import json
import shutil

import pytest

from fairkd_jax.digests import read_json
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation import evaluate
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.evaluation.evaluated_run import read_run
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.loading import load_model
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.training import train
from tests.training.runs import ONE


@pytest.fixture(scope="module")
def scored(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "run"
    shutil.copytree(finished, folder)
    evaluate_run(folder, split="val", devices=ONE)
    return folder


@pytest.fixture
def flip():
    """Flips a bit in the middle of a file until the test ends."""
    changed = []

    def flip(path):
        content = path.read_bytes()
        changed.append((path, content))
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 1
        path.write_bytes(damaged)

    flip.undo = lambda: [path.write_bytes(content) for path, content in (changed.pop() for _ in changed[:])]
    yield flip
    flip.undo()


def read_item(run, which, step, item):
    """Reads what a file of a checkpoint belongs to."""
    if item == "scores":
        Checkpoints(run).best_scores()
    elif item == "meter":
        Checkpoints(run).read_meter(int(step))
    elif item == "state":
        Checkpoints(run).restore_state({}, int(step))
    else:
        load_model(run, which=which, mesh=make_mesh(ONE))


def test_every_file_of_a_checkpoint(scored, flip):
    checkpoints = RunFolder(scored).checkpoints
    files = [path for path in sorted(checkpoints.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
    assert len(files) > 10
    for path in files:
        which, step, item, *_ = path.relative_to(checkpoints).parts
        flip(path)
        with pytest.raises(UsageError) as refused:
            read_item(scored, which, step, item)
        assert f"{path} has changed since it was written" in str(refused.value)
        assert "delete it and train again" in str(refused.value)
        flip.undo()
    load_model(scored, which="best", mesh=make_mesh(ONE))


def test_predictions_and_their_evaluation(scored, flip):
    folder = RunFolder(scored)
    for path in (folder.predictions("val"), folder.evaluation("val")):
        flip(path)
        with pytest.raises(UsageError, match=f"{path.name} cannot be read .*fairkd-eval"):
            read_run(scored, "val")
        flip.undo()
    read_run(scored, "val")


def test_scores_that_cannot_be_written_are_not_lost(scored, monkeypatch):
    def refuse(path, arrays):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(evaluate, "write_arrays", refuse)
    with pytest.raises(evaluate.UnwrittenEvaluationError, match=r"written: .*val\.npz: Read-only") as found:
        evaluate_run(scored, split="val", devices=ONE)
    told = found.value.evaluation["student"]
    assert told["accuracy"] == read_json(RunFolder(scored).evaluation("val"))["student"]["accuracy"]


def test_the_config(scored, flip):
    flip(RunFolder(scored).config)
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        evaluate_run(scored, split="val", devices=ONE)


def test_a_config_that_somebody_changed_is_refused_and_the_way_out_named(scored):
    path = RunFolder(scored).config
    content = json.loads(path.read_text())
    original = path.read_bytes()
    try:
        path.write_text(json.dumps(content | {"seed": 77}))
        with pytest.raises(UsageError, match="changed since it was written; to keep a change of yours, take"):
            read_run(scored, "val")
    finally:
        path.write_bytes(original)


def test_a_folder_without_its_config_is_nobodys(scored, make_config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(scored, folder)
    RunFolder(folder).config.unlink()
    for changes in ({}, {"optimizer__learning_rate": 0.5}):
        with pytest.raises(UsageError, match=r"checkpoints but no config\.json.*choose another --workdir"):
            train(make_config(**changes), folder, devices=ONE)
    assert not RunFolder(folder).config.exists()


def test_a_checkpoint_that_a_training_replaces_meanwhile_is_not_called_damaged(scored, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(scored, folder)
    reader = Checkpoints(folder)
    step = reader.best_step()
    best = RunFolder(folder).checkpoints / "best"
    (best / str(step)).rename(best / str(step + 1))  # as if another process had saved a better one
    with pytest.raises(UsageError, match=r"a training has replaced .*; start the command again"):
        reader.best_scores()
