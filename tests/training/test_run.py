"""Whole runs on digits: what they leave behind, how they are evaluated, and how they refuse."""

import fcntl
import itertools
import json
import math
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from configs import ckd, ckd_adv, rkd_adv, teacher
from fairkd_jax.data.batches import iterate_train_batches
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.evaluation.evaluated_run import read_run
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.recipe.related import baseline_config, teacher_config
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.dataset import open_data
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.training import Stopped, loop, train, write_class_means
from fairkd_jax.training import run as training_run
from fairkd_jax.training.student_log import rank
from tests.training.runs import CLOCKS, ONE, last_student, lines_of

pytestmark = pytest.mark.usefixtures("built_once")
TWO = jax.devices()[:2]


def test_a_run_leaves_its_folder(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["student"]["architecture"] == "stem"
    assert config["task"]["group_names"] == ["blue", "orange"]
    lines = lines_of(finished)
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert {"loss", "cross_entropy/accuracy", "learning_rate", *CLOCKS} <= lines[0].keys()
    assert "student" in (finished / "parameters.txt").read_text()
    assert Checkpoints(finished).last_step() == 8
    best = Checkpoints(finished).best_scores()
    validations = [line["validation/accuracy"] for line in lines if "validation/accuracy" in line]
    assert best["accuracy"] == pytest.approx(max(validations))


def test_a_start_that_fails_leaves_the_folder_free(make_config, tmp_path):
    with pytest.raises(UsageError, match="batch_size"):
        train(make_config(batch_size=8000), tmp_path / "run")
    with pytest.raises(UsageError, match="holds no run"):
        train(make_config(ckd, teacher__checkpoint=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def distilled(make_config, make_once):
    """A run of `ckd_adv.py`, its teacher, and its baseline without debiasing, on two devices."""

    def make(workdir):
        config = make_config(ckd_adv, optimizer__ema_decay=0.9)
        train(config, workdir, devices=TWO)
        baseline = baseline_config(parse_recipe(config), workdir / "teacher")
        train(baseline, workdir / "baseline", name="baseline", devices=TWO)

    return make_once("distilled", make)


def test_the_teacher_is_trained_first_and_found_again(distilled, make_config, tmp_path, capsys):
    assert (distilled / "teacher" / "checkpoints" / "best").is_dir()
    again = shutil.copytree(distilled, tmp_path / "again")
    train(make_config(ckd_adv, optimizer__ema_decay=0.9), again)
    assert capsys.readouterr().out.count("this run is complete") == 2
    names = set().union(*(line.keys() for line in lines_of(distilled)))
    assert {"cross_entropy/loss", "ckd/loss", "adversary/advantage", "gradient_ratio"} <= names
    assert not (distilled / "baseline" / "teacher").exists()


def test_an_evaluation_agrees_with_its_predictions(distilled):
    result = evaluate_run(distilled, baseline=distilled / "baseline", batch_size=100)
    written = json.loads((distilled / "eval" / "test.json").read_text())
    assert written["student"]["accuracy"] == result["student"]["accuracy"]
    with np.load(distilled / "predictions" / "test.npz", allow_pickle=False) as file:
        data = dict(file)
    assert len(set(data["id"].tolist())) == len(data["label"]) == written["num_examples"]["test"]
    for name in ("teacher", "student", "baseline"):
        prediction = data[f"{name}_prediction"]
        np.testing.assert_array_equal(prediction, data[f"{name}_probabilities"].argmax(axis=1))
        np.testing.assert_allclose(data[f"{name}_probabilities"].sum(axis=1), 1, rtol=1e-5)
        assert result[name]["accuracy"] == pytest.approx((prediction == data["label"]).mean())
        gaps = []
        for c in range(10):
            recalls = [(prediction[(data["label"] == c) & (data["group"] == g)] == c).mean() for g in (0, 1)]
            gaps.append(recalls[0] - recalls[1])
        np.testing.assert_allclose(result[name]["disparity"], gaps)
        assert result[name]["mean_abs_disparity"] == pytest.approx(np.abs(gaps).mean())
    assert result["student"]["objectives"]["adversary"] == 1.0
    assert result["baseline"]["objectives"]["adversary"] == 0.0


def test_one_device_scores_as_eight_do(distilled):
    together = evaluate_run(distilled, split="val")
    alone = evaluate_run(distilled, split="val", devices=ONE, batch_size=7)
    assert alone["student"]["accuracy"] == together["student"]["accuracy"]
    assert alone["teacher"]["disparity"] == pytest.approx(together["teacher"]["disparity"], nan_ok=True)


def test_a_checkpoint_can_be_chosen_and_no_other_scores_are_overwritten(distilled, tmp_path):
    distilled = shutil.copytree(distilled, tmp_path / "run")
    best, *others = (RunFolder(distilled).evaluation("val", name) for name in ("best", "last", "8"))
    evaluate_run(distilled, split="val")
    kept = best.read_bytes()
    assert evaluate_run(distilled, split="val", checkpoint="last")["student"]["step"] == 8
    assert evaluate_run(distilled, split="val", checkpoint="8")["student"]["step"] == 8
    assert [path.name for path in (best, *others)] == ["val.json", "val.last.json", "val.8.json"]
    assert best.read_bytes() == kept
    for name, path in zip(("best", "last", "8"), (best, *others), strict=True):
        run, written = read_run(distilled, "val", name), json.loads(path.read_text())
        assert (written["checkpoint"], written["student"]["step"]) == (name, run.step)
        assert run.prediction.size == written["student"]["num_examples"]
        with np.load(RunFolder(distilled).predictions("val", name)) as arrays:
            assert arrays["student_step"] == run.step
    with pytest.raises(
        UsageError, match=r"no checkpoint '99' in .*; --checkpoint can be last \(step 8\), best"
    ):
        evaluate_run(distilled, split="val", checkpoint="99")


def test_a_teacher_of_another_run_is_used(distilled, make_config, tmp_path):
    config = make_config(ckd, teacher__checkpoint=str(distilled / "teacher"), epochs=1)
    train(config, tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run" / "teacher").exists()
    evaluation = evaluate_run(tmp_path / "run", devices=ONE)
    assert evaluation["teacher"]["accuracy"] > 0


def test_a_teacher_that_does_not_fit_is_refused(distilled, make_config, tmp_path, monkeypatch):
    config = make_config(ckd, teacher__checkpoint=str(distilled / "teacher"))
    config.data.digits.seed = 1
    with pytest.raises(UsageError, match="was trained on other images, or on another split of digits"):
        train(config, tmp_path / "run", devices=ONE)
    reads = itertools.count(1)

    def read(tree):
        if next(reads) == 6:
            signal.raise_signal(signal.SIGTERM)
        return jax.device_get(tree)

    monkeypatch.setattr(loop, "read_from_device", read)
    with pytest.raises(Stopped):
        train(make_config(teacher), tmp_path / "teacher", devices=ONE)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="is at step 7 of 8; finish its training first"):
        train(make_config(ckd, teacher__checkpoint=str(tmp_path / "teacher")), tmp_path / "run", devices=ONE)


def test_a_teacher_may_move_but_not_change(distilled, make_config, tmp_path):
    """A student that goes on must go on from the same teacher, wherever that is now."""
    shutil.copytree(distilled / "teacher", tmp_path / "moved")
    config = make_config(ckd, teacher__checkpoint=str(distilled / "teacher"), epochs=1)
    train(config, tmp_path / "run", devices=ONE)
    config.teacher.checkpoint = str(tmp_path / "moved")
    train(config, tmp_path / "run", devices=ONE)
    train(make_config(teacher, seed=5), tmp_path / "other", devices=ONE)
    config.teacher.checkpoint = str(tmp_path / "other")
    with pytest.raises(UsageError, match=r"task\.teacher\.fingerprint"):
        train(config, tmp_path / "run", devices=ONE)


def test_the_teachers_config_trains_what_a_distillation_trains_first(make_config):
    assert teacher_config(make_config(rkd_adv)).to_dict() == make_config(teacher).to_dict() | {
        "student": teacher_config(make_config(rkd_adv)).student.to_dict()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 30}, "batch_size=30 does not divide by 8 devices; use 24 or 32"),
        ({"batch_size": 2, "objectives": ("cross_entropy", "rkd_angle")}, "too small for rkd_angle; use 3"),
        ({"ckd__temperature": -4.0, "objectives": ("ckd",)}, r"temperature=-4\.0 must be above 0"),
        ({"dkd__alpha": math.inf, "objectives": ("dkd",)}, r"dkd\.alpha=inf must be 0 or more, and finite"),
        (
            {"teacher__checkpoint": "a", "teacher__pretrained": "b"},
            "pretrained is for a teacher that is trained here",
        ),
        ({"optimizer__momentum": 5.0}, r"optimizer\.momentum=5\.0 is not in"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"population__wave_size": -1}, r"population\.wave_size=-1 must be 0 or more"),
        ({"batch_size": 8000}, "batch_size=8000 is more than the 1078 training images"),
        ({"objectives": ("cross_entropy", "rdk")}, "unknown objective 'rdk'"),
        ({"objectives": ()}, "objectives is empty"),
        ({"objectives": ("adversary",)}, "an adversary alone teaches nothing"),
        ({"objectives": ("cross_entropy", "cross_entropy")}, "names one twice"),
        ({"cross_entropy__weight": -1.0}, r"cross_entropy\.weight=-1\.0 must be 0 or more"),
        ({"optimizer__name": "adam"}, "unknown optimizer 'adam'; use one of adamw, sgd"),
        ({"optimizer__schedule": "step"}, "unknown schedule 'step'"),
        ({"student__architecture": "resnet50"}, "'resnet50'"),
        ({"student__dtype": "float16"}, "dtype='float16'"),
        ({"data__name": "cifar"}, "cifar"),
        ({"eval_every_epochs": 0.0}, "eval_every_epochs"),
        ({"seed": -1}, r"seed=-1 must be from 0 to 2\*\*32 - 1"),
        ({"data__image_size": 0}, r"data\.image_size=0 must be at least 1"),
        ({"epochs": 10**12}, r"epochs=10+ means [\d,]+ steps, more than 100,000,000; use fewer"),
        ({"optimizer__learning_rate": 0.0}, r"optimizer\.learning_rate=0\.0 must be above 0"),
        ({"optimizer__ema_decay": 1.0}, r"optimizer\.ema_decay=1\.0 is not in"),
        ({"augment__crop_scale": 0.0}, "crop_scale"),
    ],
)
def test_a_config_that_cannot_work_is_refused(make_config, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message) as error:
        train(make_config(**changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_folders_that_hold_no_run_are_refused(make_config, tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        evaluate_run(tmp_path)
    with pytest.raises(UsageError, match="holds no run"):
        train(make_config(ckd, teacher__checkpoint=str(tmp_path / "nowhere")), tmp_path / "run")
    for content in ('{"seed": 0', "[]", '{"task": {}}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UsageError, match="damaged"):
            evaluate_run(tmp_path)
    task = {"class_names": ["a"], "group_names": ["b"], "num_examples": {}, "digests": {}}
    kept = {"task": task, "version": 1} | json.loads(make_config().to_json())
    for section, broken, message in (
        ("student", None, "damaged"),
        ("student", {"architecture": "stem"}, "damaged"),
        ("data", [], "damaged"),
        ("data", {"name": "digits"}, "lacks the key source"),
        ("version", 2, "a later version of fairkd_jax; update"),
        ("version", "new", "damaged"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(kept | {section: broken}))
        with pytest.raises(UsageError, match=message):
            evaluate_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        train(make_config(), tmp_path / "file" / "run")
    with pytest.raises(UsageError, match=r"cannot prepare digits in .*file/data.* FAIRKD_DATA"):
        train(make_config(data__directory=str(tmp_path / "file" / "data")), tmp_path / "run")


@pytest.mark.parametrize("devices", [1, 2])
def test_images_on_the_device_in_the_host_or_neither_train_the_same(make_config, tmp_path, devices):
    students = []
    for cache in ("device", "host", "none"):
        config = make_config(data__cache=cache, augment__flip=True, augment__crop_scale=0.6, epochs=1)
        train(config, tmp_path / cache, devices=jax.devices()[:devices])
        students.append(last_student(tmp_path / cache)[1])
    for other in students[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), students[0], other)


def test_a_folder_takes_one_process_at_a_time(make_config, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another process is training in"):
        train(make_config(), tmp_path, devices=ONE)
    os.close(folder)


def test_data_that_a_run_cannot_use_are_refused_before_a_teacher_is_trained(
    make_config, tmp_path, monkeypatch
):
    def without(data):
        dataset = open_data(data)
        del dataset.info.num_examples["test"]
        return dataset

    monkeypatch.setattr(training_run, "open_data", without)
    with pytest.raises(UsageError, match="digits has no images in test, which a run needs"):
        train(make_config(rkd_adv), tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run").exists()


def test_batches_of_one_image_are_drawn(make_config, tmp_path):
    split = open_data(parse_recipe(make_config()).data).split("train")
    ones = [next(iterate_train_batches(split, batch_size=1, seed=0, start_step=step)) for step in range(3)]
    three = next(iterate_train_batches(split, batch_size=3, seed=0))
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in ones]), three["index"])


def test_a_teacher_that_was_never_saved_is_left_as_it_is(finished, tmp_path):
    (tmp_path / "teacher").mkdir()
    shutil.copy(finished / "config.json", tmp_path / "teacher")
    with pytest.raises(UsageError, match="has no checkpoints yet; finish its training first"):
        write_class_means(tmp_path / "teacher", devices=ONE)
    assert [path.name for path in (tmp_path / "teacher").iterdir()] == ["config.json"]


def test_a_baseline_needs_an_adversary(make_config):
    with pytest.raises(UsageError, match="has none"):
        baseline_config(parse_recipe(make_config(ckd)), None)


def test_the_best_checkpoint_keeps_within_the_bound():
    def scores(accuracy, disparity):
        return {"accuracy": accuracy, "corrected_mean_abs_disparity": disparity}

    fair, accurate, unknown = scores(0.8, 0.04), scores(0.9, 0.2), scores(0.95, math.nan)
    assert max((fair, accurate), key=lambda s: rank(s, None)) is accurate
    assert max((fair, accurate, unknown), key=lambda s: rank(s, 0.05)) is fair
    assert max((scores(0.8, 0.3), accurate, unknown), key=lambda s: rank(s, 0.05)) is accurate
