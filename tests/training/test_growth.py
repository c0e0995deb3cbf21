"""Runs that go on with more epochs, and models that are taken as they are."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import ckd
from fairkd_jax.engine.optimizers import make_run_schedule
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.models import create_model
from fairkd_jax.models.weights.convert import to_source
from fairkd_jax.models.weights.files import write_safetensors
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.training import train
from fairkd_jax.training.growth import describe_jump, find_restarts
from tests.training.runs import ONE, last_student, lines_of

NAME = "blocks"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A file with a head of ten classes, which it does not name, and what is in it, flat."""
    module = create_model(NAME, num_classes=10)
    variables = jax.jit(module.init)(jax.random.key(7), np.zeros((1, 16, 16, 3), np.float32))
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_safetensors(path, to_source(NAME, variables, "timm"), {})
    return path, flatten_dict(variables)


def taught_by(path, make_config, **changes):
    changes = {"teacher__epochs": 0, "teacher__head": "keep", "epochs": 1} | changes
    return make_config(ckd, teacher__pretrained=str(path), teacher__architecture=NAME, **changes)


def rates(workdir):
    return {line["step"]: line["learning_rate"] for line in lines_of(workdir) if "loss" in line}


def test_a_pretrained_teacher_as_it_is_and_a_run_made_longer_without_its_file(
    make_config, pretrained, tmp_path, capsys
):
    path, folder = shutil.copy(pretrained[0], tmp_path), tmp_path / "run"
    train(taught_by(path, make_config), folder, devices=ONE)
    step, teacher = last_student(folder / "teacher")
    assert step == 0
    teacher = flatten_dict(teacher)
    assert teacher.keys() == pretrained[1].keys()
    for name, array in pretrained[1].items():
        np.testing.assert_array_equal(teacher[name], array)
    assert evaluate_run(folder, devices=ONE)["teacher"]["step"] == 0
    (tmp_path / "weights.safetensors").unlink()
    capsys.readouterr()
    train(taught_by(path, make_config), folder, devices=ONE)
    said = capsys.readouterr().out
    assert "teacher: this run is complete, 0 steps" in said
    assert "student: this run is complete, 4 steps" in said
    with pytest.raises(UsageError, match="there is no checkpoint file"):
        train(taught_by(path, make_config), tmp_path / "new", devices=ONE)
    # Longer, with one schedule over all epochs; then with a schedule over the added ones.
    train(taught_by(path, make_config, epochs=2), folder, devices=ONE)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "jumps" in line]
    assert "--config.optimizer.restart=True begins a schedule over the added epochs" in line
    restarted = taught_by(path, make_config, epochs=4, optimizer__restart=True)
    train(restarted, folder, devices=ONE)
    assert "jumps" not in capsys.readouterr().out
    assert read_run_config(folder).data_info["restarts"] == [8]
    fresh = make_run_schedule(parse_recipe(restarted).optimizer, 9, 1078 / 256)
    found = rates(folder)
    assert max(found) == 17
    for step in (10, 12, 14, 16, 17):
        assert found[step] == pytest.approx(float(fresh(step - 1 - 8)), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher__head": "auto"},
            r"teacher\.epochs=0 would use a new head .* set teacher\.head=keep, or",
        ),
        ({"teacher__head": "new"}, r"teacher\.epochs=0 would use a new head .*teacher\.epochs above 0"),
        (
            {"teacher__pretrained": "", "teacher__head": "auto"},
            r"teacher\.epochs=0 must be at least 1",
        ),
        ({"epochs": 0}, r"epochs=0 must be at least 1, or 0 for a model with student\.pretrained"),
        ({"teacher__epochs": -1}, r"teacher\.epochs=-1 must be at least 1"),
    ],
)
def test_a_model_that_has_learnt_nothing_is_refused(make_config, pretrained, tmp_path, changes, message):
    config = taught_by(pretrained[0], make_config)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    with pytest.raises(UsageError, match=message):
        train(config, tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run").exists()


def test_a_schedule_with_restarts_is_that_of_each_piece(make_config):
    recipe = parse_recipe(make_config()).optimizer
    whole = make_run_schedule(recipe, 20, 4.0, (8, 14))
    for start, end in ((0, 8), (8, 14), (14, 20)):
        piece = make_run_schedule(recipe, end - start, 4.0)
        for step in range(start, end):
            assert float(whole(step)) == pytest.approx(float(piece(step - start)), rel=1e-6)


def test_which_growth_begins_a_schedule(make_config, finished, tmp_path):
    """The run has 8 steps; what it once began anew stays."""
    folder = shutil.copytree(finished, tmp_path / "run")

    def find(**changes):
        return find_restarts(parse_recipe(make_config(**changes)), [tmp_path / "absent", folder])

    assert find(epochs=2) == find(epochs=2, optimizer__restart=True) == ((), 0)
    assert find(epochs=4) == ((), 8)
    assert find(epochs=4, optimizer__restart=True) == ((8,), 0)
    content = json.loads((folder / "config.json").read_text())
    del content["sha256"]
    content["task"]["restarts"] = [4]
    (folder / "config.json").write_text(json.dumps(content))
    assert find(epochs=2) == ((4,), 0)
    assert find(epochs=4, optimizer__restart=True) == ((4, 8), 0)
    constant = parse_recipe(make_config(epochs=4, optimizer__schedule="constant"))
    assert describe_jump(constant, (), 8, 17, 4.2) == ""
