"""Probes of a whole run: which features they see, what is written of them, and what is printed."""

import contextlib
import io
import json
import shutil

import jax
import numpy as np
import pytest

from fairkd_jax.data.augment import preprocess
from fairkd_jax.data.batches import iterate_eval_batches
from fairkd_jax.engine.eval_step import compile_eval_step, evaluate, make_eval_step
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation import evaluate as evaluation
from fairkd_jax.evaluation import probes
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.fairness import probe
from fairkd_jax.recipe.sections import parse_data
from fairkd_jax.report import tables
from fairkd_jax.runs.dataset import open_data, open_recorded_data
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.runs.loading import load_run
from fairkd_jax.training import train

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def run(make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "student"
    train(make_config(epochs=1), workdir, devices=ONE)
    return workdir


@pytest.fixture(scope="module")
def probed(run):
    """The run beside itself: the evaluation, what each probe was given, and what was said meanwhile."""
    given, said = [], io.StringIO()
    real = probes.probe_features

    def seen(*samples, **options):
        given.append((samples, options))
        return real(*samples, **options)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(probes, "probe_features", seen)
        patch.setattr(probe, "STEPS", 100)
        result = evaluate_run(run, baseline=run, probe=True, devices=ONE)
    return result, given, said.getvalue().splitlines()


def test_an_evaluation_says_what_was_read(run, probed):
    result = probed[0]
    written = json.loads((run / "eval" / "test.json").read_text())
    assert "probe" not in result.get("teacher", {})
    for name in ("student", "baseline"):
        assert written[name]["probe"] == result[name]["probe"]
        assert result[name]["probe"].keys() == {"embedding", "logits"}
        for kinds in result[name]["probe"].values():
            assert kinds.keys() == {"linear", "mlp"}
            for found in kinds.values():
                assert found["num_images"] == written["num_examples"]["test"]
                assert found["label_accuracy"] == pytest.approx(0.5)
                low, high = found["interval"]
                assert low <= found["advantage"] <= high
    # The digits' tint moves everything; what is read is the same each time.
    assert result["student"]["probe"]["embedding"]["mlp"]["advantage"] > 0.05
    assert result["student"]["probe"] == result["baseline"]["probe"]


def test_a_later_evaluation_keeps_what_was_read(run, probed, tmp_path):
    again = evaluate_run(shutil.copytree(run, tmp_path / "run"), devices=ONE)
    assert again["student"]["probe"] == probed[0]["student"]["probe"]
    path = tmp_path / "run" / "eval" / "test.json"
    written = json.loads(path.read_text())
    written["student"]["step"] += 1  # as if it had been of another checkpoint
    path.write_text(json.dumps(written))
    assert "probe" not in evaluate_run(tmp_path / "run", devices=ONE)["student"]


def test_it_says_what_it_is_at(probed):
    assert probed[2] == [
        f"probing {name}: {what} ..."
        for name in ("student", "baseline")
        for what in (
            "its features of the training and validation images",
            "embedding, linear",
            "embedding, mlp",
            "logits, linear",
            "logits, mlp",
        )
    ]


def test_probes_see_each_image_once_in_order(run, probed):
    """Features of whole splits, from eight devices and batches that are not full, are those of the model."""
    (samples, options), *_ = probed[1]
    saved = read_run_config(run)
    dataset, mesh = open_data(parse_data(saved.config["data"])), make_mesh()
    model = load_run(run, "best", saved.data_info, mesh)
    assert options == {"num_groups": 2, "num_classes": 10, "hidden": ()}
    for split, sample in zip(("train", "val", "test"), samples, strict=True):
        np.testing.assert_array_equal(sample.label, dataset.split(split).labels)
        np.testing.assert_array_equal(sample.group, dataset.split(split).groups)
        assert len(sample.features) == len(sample.label)
    split = dataset.split("val")
    images = preprocess(split.read_images(), size=model.image_size)
    outputs = jax.jit(model.module.apply)(model.variables, images)
    np.testing.assert_allclose(samples[1].features, outputs.embedding, atol=1e-4)
    step = make_eval_step(model.module, image_size=model.image_size, num_groups=2, with_features=True)
    batches = iterate_eval_batches(split, batch_size=104)
    assert len(split) % 104
    scores = evaluate(compile_eval_step(step, mesh), model.variables, batches, mesh)
    np.testing.assert_allclose(scores.features["embedding"], outputs.embedding, atol=1e-4)
    np.testing.assert_allclose(jax.nn.softmax(scores.features["logits"]), scores.probabilities, atol=1e-5)


def test_the_table_shows_it(probed):
    result = probed[0]
    lines = tables.format_comparison(result).splitlines()
    models = [name for name in tables.MODELS if name in result]
    warnings = [(name, text) for name in models for text in result[name]["diagnostics"]["warnings"]]
    assert warnings  # these models have hardly begun
    assert lines[-len(warnings) :] == [f"warning, {name}: {text}" for name, text in warnings]
    lines = lines[: -len(warnings)]
    title = next(i for i, line in enumerate(lines) if line.startswith("group readable from"))
    assert [line.split("  ")[1] for line in lines[title + 1 :]] == [
        "embedding, linear",
        "embedding, MLP",
        "logits, linear",
        "logits, MLP",
    ]
    found = result["student"]["probe"]["logits"]["mlp"]
    assert lines[-1].endswith(f"{found['advantage']:z.3f} ({found['accuracy']:.2f})")
    assert len({len(line) for line in lines[:title] + lines[title + 1 :]}) == 1
    low, high = result["student"]["corrected_interval"]
    rows = {line[: len("  p value of no bias at all")].strip(): line for line in lines}
    assert rows["its 95 % interval"].endswith(f"{low:.4f} to {high:.4f}")
    assert rows["p value of no bias at all"].endswith(f"{result['student']['any_bias_p']:.4f}")


def test_the_table_shows_what_cannot_be_estimated(run, probed):
    found = json.loads((run / "eval" / "test.json").read_text())
    student = found["student"]
    student["corrected_interval"], student["any_bias_p"] = [None, None], None
    student["probe"]["embedding"]["linear"] |= {"advantage": None, "accuracy": None}
    student["probe"]["embedding"]["mlp"] |= {"advantage": -0.0001, "accuracy": 0.5}
    del found["baseline"]
    rows = [line.split() for line in tables.format_comparison(found).splitlines()]
    assert ["its", "95", "%", "interval", "n/a"] in rows
    assert ["p", "value", "of", "no", "bias", "at", "all", "n/a"] in rows
    assert ["embedding,", "linear", "n/a"] in rows
    assert ["embedding,", "MLP", "0.000", "(0.50)"] in rows
    del student["probe"]
    assert "readable" not in tables.format_comparison(found)


def test_what_cannot_be_probed_is_one_line(run, monkeypatch):
    with pytest.raises(
        UsageError, match="fitted on train and chosen on val: --probe needs --split=test, not val"
    ):
        evaluate_run(run, split="val", probe=True, devices=ONE)

    def with_one_group(*arguments, **options):
        dataset = open_recorded_data(*arguments, **options)
        dataset.split("train").counts[1] = 0
        return dataset

    monkeypatch.setattr(evaluation, "open_recorded_data", with_one_group)
    with pytest.raises(UsageError, match="at least two known groups; digits has 1") as error:
        evaluate_run(run, probe=True, devices=ONE)
    assert "\n" not in str(error.value)
