"""The benchmarks of the training step: they run, count and find what they promise."""

import importlib.util
import json
import sys

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairkd_jax.benchmarks import layers, memory, step, suite
from fairkd_jax.benchmarks.program import Setting
from fairkd_jax.benchmarks.suite import Scale
from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model
from fairkd_jax.models.architecture import ARCHITECTURES
from scripts.benchmark import main
from tests.models.toy import TOY

TINY = ["--student=efficientnet_tiny", "--teacher=efficientnet_tiny"]


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """What is tested here is that the figures are made, not what they are."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def figures(arguments, path):
    assert main([*arguments, f"--json={path}"]) == 0
    document = json.loads(path.read_text())
    assert document["platform"] == "cpu"
    return document[arguments[0]]


def test_all_that_a_gpu_is_asked_runs_on_a_cpu(tmp_path, monkeypatch, capsys):
    scale = Scale(32, 8, "float32", largest=8, members=2, small=(16, 4), limit=0.002)
    monkeypatch.setitem(suite.SCALES, "cpu", scale)
    monkeypatch.setitem(ARCHITECTURES, "toy", TOY)
    found = figures(["suite", "--student=toy", "--teacher=toy", "--rounds=1"], tmp_path / "suite.json")
    assert found["best_batch"] == 8
    (result,) = found["step"]["results"]
    assert (result["batch"], result["size"]) == (8, 32)
    for key in ("operations", "bytes", "peak_bytes", "compile_seconds", "share_of_arithmetic"):
        assert result[key] > 0, key
    assert result["images_per_second"]["fairkd_jax"] > 0
    longest = found["kernels"]["longest"]
    assert len(longest) == 10
    assert [row["milliseconds"] for row in longest] == sorted(
        (row["milliseconds"] for row in longest), reverse=True
    )
    assert any("EfficientNet" in row["from"] for row in longest)
    assert all(row["lax"] > 0 and row["shift"] > 0 for row in found["depthwise"])
    for name in ("population", "small_population"):
        (row,) = found[name]
        assert row["members"] == 2
        assert 0 < row["bound"] <= 1
        assert row["bytes_for_each_further_student"] > 0
    plain, again = found["memory"]["rows"]
    assert again["peak_bytes"] < plain["peak_bytes"]
    assert again["largest_batch"] >= plain["largest_batch"]
    assert "ms, one by one" in capsys.readouterr().out


def test_forward_counts_less_than_the_step(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "toy", TOY)
    common = ["--student=toy", "--size", "32", "--batch", "4", "--rounds=1"]
    (forward,) = figures(["forward", *common], tmp_path / "f.json")["results"]
    (step,) = figures(["step", *common, "--teacher=toy"], tmp_path / "s.json")["results"]
    assert 0 < 2 * forward["operations"] < step["operations"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forward", "--json=/no/such/folder/x.json"], "there is no folder /no/such/folder"),
        (["forward", "--json=docs"], "--json docs is a folder"),
        (["memory", "--limit=0"], "--limit 0 must be above 0"),
        (["step", "--batch", "4", "0"], "0 must be at least 1"),
        (["memory", "--config.epochs=3"], "unrecognized arguments: --config.epochs=3"),
        (["step", "--student=resnet50"], "model 'resnet50' is unknown"),
        (["forward", *TINY[:1], "--size=32", "--against=torch", "--python=/no/python"], "No such file"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_it_says_how_to_install_it(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["forward", TINY[0], "--size=32", "--batch=2", "--against=torch", f"--python={sys.executable}"])
    assert stop.value.code == 2
    assert "install torch" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_agrees_and_is_measured(tmp_path):
    options = ["step", *TINY, "--size=32", "--batch=4", "--rounds=1", "--against=torch"]
    (result,) = figures(options, tmp_path / "step.json")["results"]
    assert result["times_as_fast_as"]["torch eager"] > 0


def test_the_depthwise_layers_of_b0_are_all_there():
    rows = layers.shapes(create_model("efficientnet_b0", num_classes=2).architecture, 224)
    assert sum(row["layers"] for row in rows) == 16
    assert rows[0] == {"size": 112, "channels": 32, "kernel": 3, "stride": 1, "layers": 1}
    assert rows[-1] == {"size": 7, "channels": 1152, "kernel": 3, "stride": 1, "layers": 1}


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**8),
    st.integers(0, 300),
    st.integers(8, 512),
    st.integers(1, 400),
)
def test_the_largest_batch_fits_and_hardly_a_larger_one_would(each, constant, pairs, start, fitting):
    """Memory that grows with the batch and, a little, with its square."""

    def peak_of(batch):
        return constant + each * batch + pairs * batch**2

    limit = peak_of(8 * fitting)
    batch, peak = memory._largest(peak_of, start, peak_of(start), limit)
    assert peak == peak_of(batch) <= limit
    assert peak > 0.98 * limit or peak_of(batch + 8) > limit


@pytest.mark.parametrize("start", [4, 12, 100])
def test_what_never_fits_is_said(start):
    with pytest.raises(UsageError, match="not even a batch of 8 fits"):
        memory._largest(lambda batch: 1e3 * batch, start, 1e3 * start, 10.0)


def test_a_search_for_the_best_batch_ends_where_none_fits(monkeypatch):
    monkeypatch.setattr(step, "_rate", lambda setting: 0.0)
    with pytest.raises(UsageError, match="not even a batch of 8 fits the memory"):
        step.best_batch(Setting("step", "toy", "toy", 32, 8, "float32"), 64)
    rates = {8: 10.0, 16: 15.0, 32: 14.0}
    monkeypatch.setattr(step, "_rate", lambda setting: rates[setting.batch])
    assert step.best_batch(Setting("step", "toy", "toy", 32, 8, "float32"), 64) == 16


def test_a_peer_that_talks_much_is_heard(tmp_path, capsys):
    """More than a pipe holds, before its first line."""
    talker = tmp_path / "python"
    talker.write_text(
        "#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' 'x' >&2\necho >&2\necho 'no torch' >&2\n"
    )
    talker.chmod(0o755)
    with pytest.raises(SystemExit):
        main(["forward", TINY[0], "--size=32", "--batch=2", "--against=torch", f"--python={talker}"])
    assert "the peer in PyTorch has stopped (no torch)" in capsys.readouterr().err


def test_a_platform_that_is_not_there_is_said():
    with pytest.raises(UsageError, match="cannot compile for 'v99:1x1'"):
        memory._target("v99:1x1")
