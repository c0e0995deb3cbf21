"""Every method trains: from its config, on digits, for a few epochs; and one that a user has written."""

import importlib
import importlib.util
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs import ckd_adv, ctkd, dkd, kdpp, lskd, teacher
from fairkd_jax.engine.optimizers import make_optimizers
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.objectives import OBJECTIVES, create_objective
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.recipe.values import normalize
from fairkd_jax.runs.dataset import open_data
from fairkd_jax.runs.loading import load_model
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.training import class_means, train, write_class_means
from fairkd_jax.training import run as training_run
from fairkd_jax.training.checks import check_data
from tests.training.runs import ONE, lines_of, values

ROOT = Path(__file__).parents[2]
# Each config's own term, without those of the config that it starts from.
ADDED = {
    "student": ("cross_entropy",),
    "ckd": ("ckd",),
    "rkd": ("rkd_distance", "rkd_angle"),
    "ctkd": ("ctkd",),
    "kdpp": ("ckd", "kdpp"),
    "dkd": ("dkd",),
    "dist": ("dist",),
    "lskd": ("ckd",),
}


def run(config, taught, workdir):
    config.teacher.checkpoint, config.teacher.architecture = str(taught), "wide_stem"
    config.batch_size, config.log_every_steps, config.epochs = 64, 1, 3
    config.eval_every_epochs, config.optimizer.learning_rate = 3.0, 0.01
    train(config, workdir, devices=ONE)
    return [line for line in lines_of(workdir) if "loss" in line]


# With the adversary, which adds to a config but takes nothing out; tests/test_configs.py traces the rest.
@pytest.mark.parametrize("name", ["student", *(f"{name}_adv" for name in ADDED if name != "student")])
def test_the_loss_that_a_config_adds_falls(name, make_config, taught, learn, tmp_path):
    config = make_config(importlib.import_module(f"configs.{name}"), optimizer__learning_rate=0.01)
    config.adversary.warmup = 0.5
    if name == "kdpp_adv":  # a whole run, and a real network among the students
        config.student.architecture = "efficientnet_tiny"
        lines = run(config, shutil.copytree(taught, tmp_path / "teacher"), tmp_path / "run")
    else:
        lines, _ = learn(config)
    for term in ADDED[name.removesuffix("_adv")]:
        losses = values(lines, f"{term}/loss")
        assert losses[-5:].mean() < 0.9 * losses[:5].mean(), term
    if name.endswith("_adv"):
        learning = values(lines, "adversary/strength") == 0
        losses = values(lines, "adversary/loss")[learning]
        assert losses[-5:].mean() < losses[:5].mean()
    if name.startswith("ctkd"):
        assert values(lines, "ctkd/temperature")[0] == pytest.approx(15.6212, abs=1e-3)


def test_class_means_are_the_teachers_and_kept_with_its_hash(make_config, taught, tmp_path):
    shutil.copytree(taught, tmp_path / "teacher")
    path = RunFolder(tmp_path / "teacher").class_means
    path.unlink(missing_ok=True)
    found = write_class_means(tmp_path / "teacher", devices=ONE)
    config = make_config(teacher)
    dataset = open_data(parse_recipe(config).data)
    split = dataset.split("train")
    # The same without batches: on digits nothing is drawn at random.
    images = split.read_images()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    module, variables = loaded(tmp_path / "teacher")
    embedding = np.float64(module.apply(variables, np.float32((images / 255 - mean) / std)).embedding)
    expected = np.array([embedding[split.labels == c].mean(axis=0) for c in range(10)])
    np.testing.assert_allclose(found.means, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found.counts, np.bincount(split.labels))
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["means"], found.means)
        assert str(arrays["teacher"]) == found.teacher
    # On eight devices the same; and what is there is read, not computed.
    again = write_class_means(tmp_path / "teacher", overwrite=True)
    np.testing.assert_allclose(again.means, found.means, atol=1e-5 * np.abs(found.means).max())
    before = path.stat().st_mtime_ns
    write_class_means(tmp_path / "teacher", devices=ONE)
    assert path.stat().st_mtime_ns == before


def loaded(workdir):
    trained = load_model(workdir, which="best", mesh=make_mesh(ONE))
    return trained.module, trained.variables


@pytest.mark.parametrize("fault", ["another teacher", "other classes", "not finite", "damaged"])
def test_wrong_class_means_are_refused(make_config, taught, tmp_path, fault):
    shutil.copytree(taught, tmp_path / "teacher")
    path = RunFolder(tmp_path / "teacher").class_means
    path.unlink(missing_ok=True)
    found = write_class_means(tmp_path / "teacher", devices=ONE)
    if fault == "another teacher":
        class_means.save(path, found._replace(teacher="0" * 16))
    elif fault == "other classes":
        class_means.save(path, found._replace(class_names=found.class_names[::-1]))
    elif fault == "not finite":
        class_means.save(path, found._replace(means=found.means * np.nan))
    else:
        path.write_bytes(b"PK")
    with pytest.raises(
        UsageError, match=r"class_means\.npz.*delete that file, and the means are computed again"
    ) as error:
        run(make_config(kdpp), tmp_path / "teacher", tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_class_without_training_images_is_named_before_the_teacher_trains(
    make_config, tmp_path, monkeypatch
):
    def without_threes(data):
        dataset = open_data(data)
        split = dataset.split("train")
        split.labels = np.where(split.labels == 3, 4, split.labels)
        return dataset

    monkeypatch.setattr(training_run, "open_data", without_threes)
    with pytest.raises(UsageError, match="a class without training images: 3; leave out"):
        train(make_config(kdpp), tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run").exists()


def two_classes(counts):
    info = SimpleNamespace(name="two", class_names=("a", "b"), group_names=("g", "h"))
    info.num_examples = {"train": 4, "val": 4, "test": 4}
    return SimpleNamespace(info=info, split=lambda name: SimpleNamespace(counts=np.array(counts)))


def test_dkd_refuses_two_classes_before_a_teacher_trains(make_config):
    with pytest.raises(UsageError, match="at least 3 classes, not 2; use ckd"):
        check_data(parse_recipe(make_config(dkd)), two_classes([[1, 1], [1, 1]]))


def test_standardized_logits_of_two_classes_are_refused_before_a_teacher_trains(make_config):
    """They are the same for all images but for their order, and the loss has no gradient."""
    for module, name in ((lskd, "ckd"), (ctkd, "ctkd")):
        config = make_config(module)
        config[name].standardize = True
        with pytest.raises(UsageError, match=f"{name}.standardize=True needs at least 3 classes, not 2"):
            check_data(parse_recipe(config), two_classes([[1, 1], [1, 1]]))
        config[name].standardize = False
        check_data(parse_recipe(config), two_classes([[1, 1], [1, 1]]))


def test_a_bound_on_disparity_needs_images_to_compare_before_a_teacher_trains(make_config):
    config = make_config(ckd_adv, best__max_disparity=0.1)
    check_data(parse_recipe(config), two_classes([[2, 9], [2, 0]]))
    with pytest.raises(UsageError, match="at least 2 validation images in each of two groups"):
        check_data(parse_recipe(config), two_classes([[9, 1], [1, 9]]))


def test_the_decay_of_ctkds_temperature_is_an_option(make_config):
    config = make_config(ctkd)
    moved = {}
    for decay in (True, False):
        config.ctkd.decay = decay
        recipe = parse_recipe(config)
        sections = (recipe.optimizer, recipe.finetune, recipe.objectives)
        optimizer = make_optimizers(*sections, lambda step: 0.1, 1.0, head="classifier")["ctkd"]
        params = {"temperature": np.float32(2.0)}
        updates, _ = optimizer.update({"temperature": np.float32(0.0)}, optimizer.init(params), params)
        moved[decay] = float(updates["temperature"])
    assert moved[False] == 0
    assert moved[True] == pytest.approx(-0.1 * config.optimizer.weight_decay * 2.0, rel=1e-5)


def test_the_method_of_the_manual_works(make_config, taught, tmp_path):
    """docs/your_own_method.md: its example is trained with, and its run evaluated without it."""
    text = (ROOT / "docs" / "your_own_method.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "similarity.py").write_text(code)
    spec = importlib.util.spec_from_file_location("similarity", tmp_path / "similarity.py")
    module = importlib.util.module_from_spec(spec)
    known = dict(OBJECTIVES)
    try:
        spec.loader.exec_module(module)
        assert set(OBJECTIVES) - set(known) == {"similarity"}
        config = make_config(module)
        config.lock()
        assert normalize(config).objectives == ("cross_entropy", "similarity")
        with config.unlocked():
            losses = values(run(config, taught, tmp_path / "run"), "similarity/loss")
        assert losses[-5:].mean() < 0.9 * losses[:5].mean()
        assert create_objective("similarity").uses_teacher
    finally:
        OBJECTIVES.clear()
        OBJECTIVES.update(known)
    evaluation = evaluate_run(tmp_path / "run", split="val", devices=ONE)
    assert {"teacher", "student", "inflation"} <= evaluation.keys()
