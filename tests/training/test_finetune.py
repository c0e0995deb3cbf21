"""Starting from pretrained weights: what moves, what does not, and when."""

import json
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import ckd
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.files import write_text
from fairkd_jax.models import create_model
from fairkd_jax.models.weights.convert import to_source
from fairkd_jax.models.weights.files import read_checkpoint, write_safetensors
from fairkd_jax.recipe.sections import parse_model
from fairkd_jax.recipe.values import normalize
from fairkd_jax.runs.folder import read_run_config, to_json_dict
from fairkd_jax.runs.status import is_trained
from fairkd_jax.training import train
from fairkd_jax.training.pretrained import read_first_weights
from tests.training.runs import ONE, last_student

NAME = "blocks"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A file with a head of five classes, and what is in it, flat."""
    module = create_model(NAME, num_classes=5)
    variables = jax.jit(module.init)(jax.random.key(7), np.zeros((1, 16, 16, 3), np.float32))
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: np.float32(rng.uniform(0.5, 1.5, x.shape)), variables["batch_stats"])
    variables = {"params": variables["params"], "batch_stats": stats}
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_safetensors(path, to_source(NAME, variables, "timm"), {})
    return path, flatten_dict(variables)


def student_of(workdir):
    return flatten_dict(last_student(workdir)[1])


def moved(before, after):
    """The largest change of each leaf that both have in the same shape."""
    return {
        "/".join(path): np.abs(np.asarray(after[path]) - np.asarray(before[path])).max()
        for path in before
        if before[path].shape == after[path].shape
    }


def run(make_config, pretrained, workdir, **changes):
    changes |= {"student__architecture": NAME, "student__pretrained": str(pretrained[0])}
    config = make_config(epochs=1, **changes)
    config.optimizer.weight_decay = 0.1
    train(config, workdir, devices=ONE)
    return moved(pretrained[1], student_of(workdir))


def test_a_run_starts_from_the_file(make_config, pretrained, tmp_path):
    changes = run(make_config, pretrained, tmp_path / "run", optimizer__learning_rate=1e-6)
    params = [change for name, change in changes.items() if name.startswith("params")]
    assert 0 < max(params) < 1e-4
    # The head has another size, and is a new one.
    assert student_of(tmp_path / "run")["params", "classifier", "kernel"].shape[1] == 10


def name_classes(pretrained, folder, names):
    """The same file, which names the classes of its head."""
    arrays = read_checkpoint(pretrained[0])
    path = folder / "named.safetensors"
    metadata = {} if names is None else {"class_names": json.dumps(names)}
    write_safetensors(path, {name: arrays.read(name) for name in arrays.shapes}, metadata)
    return str(path)


FIVE = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("names", "head", "keeps", "reason"),
    [
        (None, "auto", False, "does not name its 5 classes; head=keep would keep"),
        (FIVE, "auto", True, "names the same classes"),
        (FIVE[::-1], "auto", False, "other classes, or another order"),
        (FIVE[:4], "auto", False, "does not name its 5 classes"),
        ({"a": 1}, "auto", False, "does not name its 5 classes"),
        (FIVE, "new", False, "head=new"),
        (None, "keep", True, "head=keep"),
    ],
)
def test_a_head_is_kept_where_the_classes_are_known_to_agree(
    make_config, pretrained, tmp_path, names, head, keeps, reason
):
    config = make_config(student__architecture=NAME, student__head=head)
    config.student.pretrained = name_classes(pretrained, tmp_path, names)
    model = parse_model(config.student)
    found = read_first_weights(model, FIVE)
    assert found.keeps_head == keeps
    assert reason in found.reason
    sizes = {"auto": "has no head of 3 classes", "new": "has no head of 3 classes", "keep": None}
    if sizes[head]:
        assert sizes[head] in read_first_weights(model, FIVE[:3]).reason
        return
    with pytest.raises(UsageError, match=r"head='keep': .* has no head of 3 classes; use auto or new"):
        read_first_weights(model, FIVE[:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "old"}, "head='old' is unknown; use one of auto, keep, new"),
        ({"head": "keep"}, "no head to keep: there is no pretrained file"),
        ({"head": "keep", "pretrained": "x", "group_heads": True}, "group_heads draws new ones"),
        ({"norm_epsilon": 0.0}, "norm_epsilon=0.0 is out of range"),
    ],
)
def test_options_of_a_head_that_cannot_be_are_refused(make_config, changes, message):
    config = make_config(student__architecture=NAME)
    config.student.update(changes)
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_model(config.student).create(num_classes=2)


def test_the_head_and_the_epsilon_of_a_file_reach_the_student_and_stay(make_config, tmp_path, capsys):
    module = create_model(NAME, num_classes=10)
    variables = jax.jit(module.init)(jax.random.key(7), np.zeros((1, 16, 16, 3), np.float32))
    metadata = {"class_names": json.dumps([*"0123456789"]), "norm_epsilon": "0.001"}
    write_safetensors(tmp_path / "w.safetensors", to_source(NAME, variables, "timm"), metadata)
    config = make_config(student__architecture=NAME, epochs=1, optimizer__learning_rate=1e-6)
    config.student.pretrained = str(tmp_path / "w.safetensors")
    folder = tmp_path / "run"
    train(config, folder, devices=ONE)
    assert "keeps its head: the file names the same classes" in capsys.readouterr().out
    assert moved(flatten_dict(variables), student_of(folder))["params/classifier/kernel"] < 1e-4
    saved = read_run_config(folder).config
    assert saved["student"]["norm_epsilon"] == 1e-3
    assert parse_model(saved["student"]).create(num_classes=10).architecture.bn_epsilon == 1e-3
    evaluate_run(folder, devices=ONE)
    assert is_trained(folder, to_json_dict(normalize(config)))
    # The file has another epsilon now, and the run keeps its own.
    write_safetensors(tmp_path / "w.safetensors", to_source(NAME, variables, "timm"), {})
    train(config, folder, devices=ONE)
    assert "this run is complete" in capsys.readouterr().out
    assert read_run_config(folder).config["student"]["norm_epsilon"] == 1e-3
    config.student.norm_epsilon = 1e-4
    with pytest.raises(UsageError, match=r"student\.norm_epsilon \(was 0\.001, now 0\.0001\)"):
        train(config, folder, devices=ONE)


def test_a_smaller_rate_for_the_backbone(make_config, pretrained, tmp_path):
    whole = run(make_config, pretrained, tmp_path / "whole")
    slow = run(make_config, pretrained, tmp_path / "slow", finetune__backbone_scale=0.01)
    for name in ("params/stem_conv/kernel", "params/head_conv/kernel"):
        assert slow[name] < 0.1 * whole[name]


def test_frozen_names_do_not_move(make_config, pretrained, tmp_path):
    changes = run(
        make_config, pretrained, tmp_path / "run", finetune__frozen=("stem*", "stage0*", "*_bn/scale")
    )
    for name, change in changes.items():
        if name.startswith("params/"):
            frozen = name.startswith(("params/stem", "params/stage0")) or name.endswith("_bn/scale")
            assert (change == 0) == frozen, name
        else:
            assert change > 0, name


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("stage0.*",), "'stage0.*' matches no array; names are such as classifier/bias"),
        (("*",), "every array"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(make_config, tmp_path, patterns, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        train(
            make_config(student__architecture=NAME, finetune__frozen=patterns), tmp_path / "run", devices=ONE
        )
    assert not (tmp_path / "run").exists()


def test_frozen_norms_keep_their_statistics(make_config, pretrained, tmp_path):
    changes = run(make_config, pretrained, tmp_path / "run", student__frozen_norm=True)
    for name, change in changes.items():
        assert (change == 0) == name.startswith("batch_stats/"), name


def test_pretrained_statistics_follow_quickly(make_config):
    config = make_config(student__architecture="tf_efficientnet_b0")
    for changes, momentum in (
        ({}, 0.99),
        ({"pretrained": "weights.h5"}, 0.9),
        ({"pretrained": "weights.h5", "norm_momentum": 0.8}, 0.8),
    ):
        config.student.update(changes)
        assert parse_model(config.student).create(num_classes=2).architecture.bn_momentum == momentum
    config.student.norm_momentum = 1.5
    with pytest.raises(UsageError, match=r"norm_momentum=1\.5 is not"):
        parse_model(config.student).create(num_classes=2)


def test_the_head_moves_first(make_config, pretrained, tmp_path):
    changes = run(make_config, pretrained, tmp_path / "run", finetune__head_first_epochs=1.0)
    assert all(change == 0 for name, change in changes.items() if name.startswith("params/"))
    longer = run(make_config, pretrained, tmp_path / "longer", finetune__head_first_epochs=0.5)
    assert all(change > 0 for name, change in longer.items() if name.startswith("params/"))
    fresh = make_config(student__architecture=NAME, epochs=1)
    train(fresh, tmp_path / "scratch", devices=ONE)
    heads = [student_of(tmp_path / name)["params", "classifier", "kernel"] for name in ("run", "scratch")]
    assert np.abs(np.subtract(*heads)).max() > 0


def test_a_teacher_can_start_from_a_file_too(make_config, pretrained, tmp_path):
    config = make_config(ckd, teacher__pretrained=str(pretrained[0]), teacher__learning_rate=1e-6, epochs=1)
    config.teacher.epochs, config.teacher.architecture = 1, NAME
    train(config, tmp_path / "run", devices=ONE)
    changes = moved(pretrained[1], student_of(tmp_path / "run" / "teacher"))
    assert max(change for name, change in changes.items() if name.startswith("params")) < 1e-4


@pytest.mark.parametrize("section", ["student", "teacher"])
def test_a_file_that_does_not_fit_is_refused_before_anything_is_trained(make_config, tmp_path, section):
    write_text(tmp_path / "weights.safetensors", "none")
    config = make_config(ckd, **{f"{section}__pretrained": str(tmp_path / "weights.safetensors")})
    with pytest.raises(UsageError, match="cannot be read"):
        train(config, tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run").exists()
