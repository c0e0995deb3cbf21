"""The benchmarks of the training step: they run, count and find what they promise."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairkd_jax.benchmarks import (
    correctness,
    curves,
    floor,
    instructions,
    layers,
    limits,
    memory,
    op_cases,
    population,
    program,
    program_parts,
    step,
    suite,
    waiting,
)
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.benchmarks.suite import Scale
from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model
from fairkd_jax.models.architecture import ARCHITECTURES, Stage
from fairkd_jax.programs.benchmark import main
from tests.models.toy import TOY

TINY = ["--student=efficientnet_tiny", "--teacher=efficientnet_tiny"]


def figures(arguments, path):
    assert main([*arguments, f"--json={path}"]) == 0
    document = json.loads(path.read_text())
    assert document["platform"] == "cpu"
    return document[arguments[0]]


# One block, as each program of the suite is compiled.
MICRO = dataclasses.replace(TOY, stages=(Stage(kernel=3, stride=2, expand=2, filters=8, blocks=1),))
SCALE = Scale(8, 4, "float32", 4, 2, (8, 4), ("toy", "toy", 8, 4), 4, large_data=False)


def write_metrics(options):
    """What a training that `run_train` starts would leave."""
    workdir = Path(next(x for x in options if x.startswith("--workdir=")).removeprefix("--workdir="))
    workdir.mkdir()
    lines = [{"loss": 4.0 / n, "data_wait_share": 0.1 / n, "images_per_second": 9.0 * n} for n in (1, 2, 4)]
    lines.append({"validation/accuracy": 0.5})
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def toy_suite(monkeypatch):
    monkeypatch.setitem(suite.SCALES, "cpu", SCALE)
    monkeypatch.setitem(ARCHITECTURES, "toy", MICRO)
    monkeypatch.setattr(program_parts, "WEIGHTS", {"cross_entropy": 1.0})
    monkeypatch.setattr(correctness, "FORMS", {"float32": correctness.FORMS["float32"]})
    monkeypatch.setattr(program_parts, "make_optimizer", lambda *args, **options: optax.sgd(0.1))
    for module in (step, population, layers):
        monkeypatch.setattr(module, "_ROUND_SECONDS", 0.01)
    monkeypatch.setattr(program_parts, "TEACHERLESS_OBJECTIVES", ("cross_entropy",))
    monkeypatch.setattr(limits, "SIDES", {"cpu": 64})
    monkeypatch.setattr(limits, "NUMBERS", {"cpu": 2**16})
    for module in (waiting, curves):
        monkeypatch.setattr(module, "run_train", write_metrics)


def test_every_section_runs_on_a_cpu(tmp_path, toy_suite, capsys):
    found = figures(["suite", "--student=toy", "--teacher=toy", "--rounds=1"], tmp_path / "suite.json")
    assert not found["failed"]
    assert not found["left_out"]
    assert list(found["seconds"]) == list(suite.SECTIONS)
    assert found["correctness"]["passed"]
    (result,) = found["step"]["results"]
    assert (result["batch"], result["size"]) == (4, 8)
    for key in ("operations", "bytes", "peak_bytes", "compile_seconds", "share_of_arithmetic"):
        assert result[key] > 0, key
    assert result["images_per_second"]["fairkd_jax"] > 0
    assert result["share_of_floor"] == pytest.approx(
        result["floor_seconds"] / result["seconds"]["fairkd_jax"]
    )
    longest = found["kernels"]["longest"]
    assert len(longest) > 10  # more than are printed
    assert [row["milliseconds"] for row in longest] == sorted(
        (row["milliseconds"] for row in longest), reverse=True
    )
    assert any("EfficientNet" in row["from"] for row in longest)
    assert all(row["floor_milliseconds"] > 0 for row in longest[:10])
    for row in found["depthwise"]:
        times = [*row["lax"].values(), *row["shift"].values(), row["floor"]]
        assert len(times) == 7
        assert all(time > 0 for time in times)
    for name in ("population", "small_population"):
        (row,) = found[name]
        assert row["members"] == 2
        assert 0 < row["bound"] <= 1
        assert row["bytes_for_each_further_student"] > 0
    assert found["best_batch"]["batch"] == found["best_batch"]["results"][0]["batch"] == 4
    assert found["memory"]["plain"] > 0
    assert found["memory"]["rematerialized"] not in (0, found["memory"]["plain"])
    assert [row["cache"] for row in found["data"]] == ["device", "host"]
    assert found["data"][0]["data_wait_share"] == pytest.approx(0.0375)  # the first report does not count
    assert found["curves"]["loss_difference"] == 0
    assert "ms, one by one" in capsys.readouterr().out


def test_a_peer_that_cannot_run_leaves_the_other_figures(toy_suite, monkeypatch, capsys):
    asked = []

    def run(settings, *, peers, **options):
        asked.append(list(peers))
        if "compiled" in peers:
            raise UsageError("the peer in PyTorch has stopped")
        return {"results": list(peers)}

    monkeypatch.setattr(step, "run", run)
    setting = BenchmarkSetting("step", "toy", "toy", 8, 4, "float32")
    whole = suite.Suite(setting, SCALE, 1, ("eager", "compiled"), "python", Path())
    found = whole.run_step()
    assert asked == [["eager", "compiled"], ["eager"]]
    assert found == {"results": ["eager"], "failed_peers": {"compiled": "the peer in PyTorch has stopped"}}
    assert "without PyTorch compiled: the peer in PyTorch has stopped" in capsys.readouterr().out


def test_sections_that_would_not_end_in_time_are_left_out(tmp_path, toy_suite, monkeypatch, capsys):
    """And what was measured before is in the file already, also where a section fails."""
    path, seen = tmp_path / "suite.json", []

    def fail(self):
        seen.append(json.loads(path.read_text())["suite"])
        raise ValueError("no such kernel")

    monkeypatch.setattr(suite.Suite, "run_data", lambda self: {"rows": 1})
    monkeypatch.setattr(suite.Suite, "run_curves", fail)
    monkeypatch.setitem(suite.SECTIONS, "data", 59)
    monkeypatch.setitem(suite.SECTIONS, "memory", 61)
    options = ["suite", "--student=toy", "--sections=data,memory,curves", f"--json={path}", "--minutes"]
    monkeypatch.setitem(suite.SECTIONS, "curves", 50)
    assert main([*options, "1"]) == 1
    assert seen[0]["data"] == {"rows": 1}
    document = json.loads(path.read_text())["suite"]
    assert document["left_out"] == ["memory"]
    assert "no such kernel" in document["failed"]["curves"]
    printed = capsys.readouterr().out
    assert "memory: left out, it takes about 61 s" in printed
    assert "curves failed: ValueError: no such kernel" in printed


def test_a_wrong_op_is_found(monkeypatch):
    """A depthwise convolution that drops a tap, in every form; the right one is within each bound."""
    monkeypatch.setitem(ARCHITECTURES, "toy", MICRO)
    cases = [case for case in op_cases.make_cases("toy", 8, 4) if case.name.startswith("depthwise")]
    rows = correctness.check_ops(cases)
    assert {row["form"] for row in rows} == set(correctness.FORMS)
    assert all(row["passed"] for row in rows)
    exact = op_cases.depthwise_conv

    def wrong(x, kernel, **options):
        return exact(x, kernel.at[0, 0].set(0.0), **options)

    monkeypatch.setattr(op_cases, "depthwise_conv", wrong)
    cases = [case for case in op_cases.make_cases("toy", 8, 4) if case.name.startswith("depthwise")]
    rows = correctness.check_ops(cases)
    assert not any(row["passed"] for row in rows)


def test_the_bytes_that_must_move_are_counted():
    """By hand, of a forward pass of the toy network at 16 pixels, batch 2, float32, with 16 classes."""
    stem = 3 * 16**2 + 8 * 8**2, 9 * 3 * 8
    first = [(8 * 64 * 2, 8 * 9), (8 + 2, 8 * 2), (2 + 8, 2 * 8), (2 * 8 * 64, 8 * 8)]
    second = [(8 * 64 + 16 * 64, 8 * 16), (16 * 64 + 16 * 16, 16 * 25), (16 + 2, 32), (2 + 16, 32)]
    second.append((2 * 16 * 16, 16 * 16))
    head = [(16 * 16 + 24 * 16, 16 * 24), (24 + 16, 24 * 16)]
    layers_of_it = [stem, *first, *second, *head]
    counted = list(floor.iterate_convolutions(TOY, 16, 16))
    assert [(c.inputs + c.outputs, c.kernel) for c in counted] == layers_of_it
    assert counted[0].products == 9 * 3 * 8 * 8**2
    assert counted[6].products == 16 * 25 * 4**2  # a depthwise convolution of stride 2


@pytest.mark.parametrize(("name", "products"), [("b0", 385_814_752), ("b3", 962_708_240)])
def test_the_products_are_those_that_others_count(name, products):
    """With 1,000 classes at 224 pixels."""
    network = ARCHITECTURES[f"efficientnet_{name}"]
    assert sum(c.products for c in floor.iterate_convolutions(network, 224, 1000)) == products


def test_a_step_is_its_passes(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "toy", TOY)
    setting = BenchmarkSetting("step", "toy", "toy", 16, 2, "bfloat16")
    found = floor.count_floor(setting)
    layers_of_it = list(floor.iterate_convolutions(TOY, 16, program_parts.NUM_CLASSES))
    activations = 2 * 2 * sum(c.inputs + c.outputs for c in layers_of_it)
    kernels = sum(c.kernel for c in layers_of_it)
    stem = 2 * 2 * (layers_of_it[0].inputs + layers_of_it[0].outputs) + 4 * layers_of_it[0].kernel
    assert found.bytes["images"] == 3 * 2 * 16**2
    assert found.bytes["teacher forward"] == activations + 2 * kernels
    assert found.bytes["student forward"] == found.bytes["kernel gradients"] == activations + 4 * kernels
    assert found.bytes["input gradients"] == activations + 4 * kernels - stem
    several = floor.count_floor(dataclasses.replace(setting, members=3))
    assert several.bytes["teacher forward"] == found.bytes["teacher forward"]
    assert several.bytes["optimizer"] == 3 * found.bytes["optimizer"]
    assert several.bytes["kernel gradients"] == 3 * found.bytes["kernel gradients"]


def test_instructions_are_read():
    text = """
HloModule m
%fused (p: f32[4,2]) -> bf16[4,2] {
  %p.1 = f32[4,2]{1,0} parameter(0)
  ROOT %c = bf16[4,2]{1,0} convert(%p.1), metadata={op_name="jit(f)/convert"}
}
ENTRY %main (x: f32[4,2]) -> (f32[8], s32[]) {
  %x.1 = f32[4,2]{1,0} parameter(0), metadata={op_name="x"}
  %fusion.2 = bf16[4,2]{1,0} fusion(%x.1), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/(a)"}
  %conv-3 = (bf16[4,2]{1,0}, u8[1000]{0}) custom-call(%fusion.2, %x.1), custom_call_target="conv"
  ROOT %t = (bf16[8]{0}, s32[]) tuple(%x.1)
}
"""
    found = instructions.read_instructions(text)
    assert found["fusion_2"] == ("jit(f)/(a)", 4 * 8 + 2 * 8)
    assert found["conv_3"] == ("", 2 * 8 + 2 * 8 + 4 * 8)  # without the space that the library works in
    assert found["t"].bytes == 16 + 4 + 32


def test_memory_is_planned_with_and_without_rematerialisation(tmp_path, toy_suite, monkeypatch):
    deep = dataclasses.replace(MICRO, stages=(dataclasses.replace(MICRO.stages[0], stride=1, blocks=3),))
    monkeypatch.setitem(ARCHITECTURES, "toy", deep)
    options = ["memory", "--student=toy", "--teacher=toy", "--size=16", "--batch=64", "--dtype=float32"]
    # The search for the largest batch is tested below.
    monkeypatch.setattr(memory, "find_largest_batch", lambda peak_of, batch, peak, limit: (batch, peak))
    plain, again = figures(options, tmp_path / "memory.json")["rows"]
    assert 0 < again["peak_bytes"] < plain["peak_bytes"]
    assert again["batch"] == plain["batch"] == 64


def test_forward_counts_less_than_the_step(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "toy", MICRO)
    common = ["--student=toy", "--size", "8", "--batch", "4", "--rounds=1"]
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
        (["suite", "--sections=step,speed"], "there is no 'speed'; the sections are correctness, step"),
        (["suite", "--minutes=0"], "--minutes 0 must be above 0"),
        (["suite", "--student=resnet50"], "model 'resnet50' is unknown"),
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
    rows = layers.list_shapes(create_model("efficientnet_b0", num_classes=2).architecture, 224)
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
    batch, peak = memory.find_largest_batch(peak_of, start, peak_of(start), limit)
    assert peak == peak_of(batch) <= limit
    assert peak > 0.98 * limit or peak_of(batch + 8) > limit


@pytest.mark.parametrize("start", [4, 12, 100])
def test_what_never_fits_is_said(start):
    with pytest.raises(UsageError, match="not even a batch of 8 fits"):
        memory.find_largest_batch(lambda batch: 1e3 * batch, start, 1e3 * start, 10.0)


def test_a_search_for_the_best_batch_ends_where_none_fits(monkeypatch):
    setting = BenchmarkSetting("step", "toy", "toy", 32, 8, "float32")
    monkeypatch.setattr(step, "_measure_rate", lambda programs, setting: 0.0)
    with pytest.raises(UsageError, match="not even a batch of 8 fits the memory"):
        step.find_best_batch(setting, 64, program.ProgramCache())
    rates = {8: 10.0, 16: 15.0, 32: 14.0}
    monkeypatch.setattr(step, "_measure_rate", lambda programs, setting: rates[setting.batch])
    assert step.find_best_batch(setting, 64, program.ProgramCache()) == 16


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
        memory._find_target("v99:1x1")
