"""Each way of debiasing from its config, as a run on digits; and the two controls."""

import importlib

import numpy as np
import pytest

from configs import ckd_heads, placebo, positive_control
from configs._debiasing import DEBIASING
from fairkd_jax.training import evaluate_run, experiment, train
from fairkd_jax.training.scoring import _balancing
from fairkd_jax.training.sharding import make_mesh
from fairkd_jax.training.trained import load_trained
from fairkd_jax.training.workdir import read_config
from tests.training.runs import ONE, lines_of, values

WAYS = [way for way in DEBIASING if way != "adv"]  # which test_methods.py trains with every distiller


def run(config, taught, workdir, epochs=3):
    config.teacher.checkpoint, config.teacher.architecture = str(taught), "wide_stem"
    config.batch_size, config.log_every_steps, config.epochs = 64, 1, epochs
    config.eval_every_epochs, config.optimizer.learning_rate = float(epochs), 0.02
    train(config, workdir, devices=ONE)
    return [line for line in lines_of(workdir) if "loss" in line]


@pytest.mark.parametrize("way", WAYS)
def test_a_student_is_debiased_from_its_config(way, make_config, learn):
    config = make_config(importlib.import_module(f"configs.ckd_{way}"), optimizer__learning_rate=0.02)
    if way == "sampling":  # the tint tells nothing then, and a stem sees no shapes
        config.student.architecture = "efficientnet_tiny"
    lines, state = learn(config)
    labels = values(lines, "cross_entropy/loss")
    assert labels[-5:].mean() < 0.9 * labels[:5].mean()
    if way == "ratio":
        np.testing.assert_allclose(
            values(lines, "gradient_ratio"), values(lines, "adversary/strength"), atol=1e-4
        )
    if way == "projection":
        assert values(lines, "adversary/cosine").any()
    if way == "critic":
        assert values(lines, "bias_critic/multiplier").max() > 1.0
    if way == "mfd":
        losses = values(lines, "mfd/loss")
        assert losses[-5:].mean() < losses[:5].mean()
    # Every line says whether the student collapses or over-corrects.
    for key in ("classes_predicted", "smallest_class_recall", "prediction_entropy", "leaning_gap", "alarms"):
        assert np.isfinite(values(lines, f"student/{key}")[-1])
    width = state.params["student"]["classifier"]["kernel"].shape[1]
    assert width == (20 if way == "heads" else 10)


def test_a_student_with_heads_is_evaluated_by_their_sum(make_config, taught, tmp_path):
    config = make_config(ckd_heads)
    lines = run(config, taught, tmp_path / "run", epochs=1)
    assert np.isfinite(values(lines, "student/alarms")).all()
    result = evaluate_run(tmp_path / "run", devices=ONE)
    assert result["student"]["balancing"] == ["group heads"]
    config, task = read_config(tmp_path / "run")
    loaded = load_trained(tmp_path / "run", config, task, which="last", mesh=make_mesh(ONE))
    assert loaded.variables["params"]["classifier"]["kernel"].shape[1] == 20


def test_an_evaluation_names_what_balances_a_student(make_config):
    named = {"sampling": "balanced sampling", "weights": "balanced weights", "heads": "group heads"}
    named |= {"ratio": "as a ratio", "projection": "by projection"}
    for way in DEBIASING:
        config = make_config(importlib.import_module(f"configs.ckd_{way}"))
        assert _balancing(config) == ([named[way]] if way in named else []), way


def test_the_positive_control_shows_the_group_in_every_image(make_config, learn):
    """At lambda 0 the adversary reads the patch. What lambda does to it: tests/training/test_controls.py."""
    config = make_config(positive_control, optimizer__learning_rate=0.02)
    config.adversary.weight = 0.0
    lines, _ = learn(config, epochs=6)
    assert values(lines, "adversary/accuracy")[-10:].mean() > 0.95
    dataset = experiment.open_data(config)
    config.data.control = "none"
    plain = experiment.open_data(config)
    for split in ("train", "val", "test"):
        assert (dataset.split(split).images() != plain.split(split).images()).any(axis=(1, 2, 3)).all()


def test_a_placebo_is_shuffled_to_learn_from_alone(make_config, taught, tmp_path, monkeypatch):
    config = make_config(placebo)
    seen = []
    real = experiment.open_dataset

    def opened(*args, **options):
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(experiment, "open_dataset", opened)
    run(config, taught, tmp_path / "run", epochs=1)
    result = evaluate_run(tmp_path / "run", devices=ONE)
    assert result["student"]["balancing"] == ["(placebo)"]
    learnt, scored = (dataset.split("train") for dataset in (seen[0], seen[-1]))
    assert (learnt.groups != scored.groups).any()
    np.testing.assert_array_equal(learnt.counts, scored.counts)
    np.testing.assert_array_equal(seen[0].split("val").groups, seen[-1].split("val").groups)
