"""Each way of debiasing from its config, as a run on digits; and the two controls."""

import numpy as np
import pytest

from configs import ckd, placebo, positive_control
from fairkd_jax.configs.debiasing import DEBIASING
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.recipe.objectives import describe_balancing, describe_objectives
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.runs import dataset as run_data
from fairkd_jax.runs.folder import to_json_dict
from fairkd_jax.runs.loading import load_model
from fairkd_jax.training import train
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
    config = make_config(ckd, words=way, optimizer__learning_rate=0.02)
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
    signs = (
        "classes_predicted",
        "smallest_class_recall",
        "prediction_entropy",
        "skew_aligned_gap",
        "warnings",
    )
    for key in signs:
        assert np.isfinite(values(lines, f"student/{key}")[-1])
    width = state.params["student"]["classifier"]["kernel"].shape[1]
    assert width == (20 if way == "heads" else 10)


def test_a_student_with_heads_is_evaluated_by_their_sum(make_config, taught, tmp_path):
    config = make_config(ckd, words="heads")
    lines = run(config, taught, tmp_path / "run", epochs=1)
    assert np.isfinite(values(lines, "student/warnings")).all()
    result = evaluate_run(tmp_path / "run", devices=ONE)
    assert result["student"]["balancing"] == ["group heads"]
    loaded = load_model(tmp_path / "run", which="last", mesh=make_mesh(ONE))
    assert loaded.variables["params"]["classifier"]["kernel"].shape[1] == 20


def test_an_evaluation_names_what_balances_a_student(make_config):
    named = {"sampling": "balanced sampling", "weights": "balanced weights", "heads": "group heads"}
    named |= {"ratio": "as a ratio", "projection": "by projection"}
    for way in DEBIASING:
        config = make_config(ckd, words=way)
        methods = describe_objectives(parse_recipe(config).objectives)
        found = describe_balancing(to_json_dict(config), methods.values())
        assert found == ([named[way]] if way in named else []), way


def test_the_positive_control_shows_the_group_in_every_image(make_config, learn):
    """At lambda 0 the adversary reads the patch. What lambda does to it: tests/training/test_controls.py."""
    config = make_config(positive_control, optimizer__learning_rate=0.02)
    config.adversary.weight = 0.0
    lines, _ = learn(config, epochs=6)
    assert values(lines, "adversary/accuracy")[-10:].mean() > 0.95
    dataset = run_data.open_data(parse_recipe(config).data)
    config.data.control = "none"
    plain = run_data.open_data(parse_recipe(config).data)
    for split in ("train", "val", "test"):
        assert (
            (dataset.split(split).read_images() != plain.split(split).read_images()).any(axis=(1, 2, 3)).all()
        )


def test_a_placebo_is_shuffled_to_learn_from_alone(make_config, taught, tmp_path, monkeypatch):
    config = make_config(placebo)
    seen = []
    real = run_data.open_dataset

    def opened(*args, **options):
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(run_data, "open_dataset", opened)
    run(config, taught, tmp_path / "run", epochs=1)
    result = evaluate_run(tmp_path / "run", devices=ONE)
    assert result["student"]["balancing"] == ["(placebo)"]
    learnt, scored = (dataset.split("train") for dataset in (seen[0], seen[-1]))
    assert (learnt.groups != scored.groups).any()
    np.testing.assert_array_equal(learnt.counts, scored.counts)
    np.testing.assert_array_equal(seen[0].split("val").groups, seen[-1].split("val").groups)
