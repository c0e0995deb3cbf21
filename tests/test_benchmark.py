"""The benchmarks run and print what they promise; what they measure is for scripts/benchmark.py itself."""

import re

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.benchmarks import waiting
from scripts.benchmark import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["angle", "--rounds=0"], "0 must be at least 1"),
        (["angle", "--config.epochs=2"], "unrecognized arguments: --config.epochs=2"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["data", "--rouns=2"], "unrecognized arguments: --rouns=2"),
        (["data", "--source=configs"], "configs holds no JPEG files"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_angle_prints_both_forms(capsys):
    assert main(["angle", "--rounds=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["in chunks", "without chunks"]


def test_data_measures_decoding_and_each_cache(tmp_path, capsys, monkeypatch):
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.jpg")
    monkeypatch.setattr(waiting, "CACHES", ("host",))
    short = ["--config.epochs=1", "--config.teacher.epochs=1"]
    assert main(["data", "--rounds=1", f"--source={tmp_path}", *short]) == 0
    printed = capsys.readouterr().out
    rates = re.findall(
        r"^(.+?)  +\d+ images/s of CPU time(?:   .* [\d.]+ times this)?$", printed, re.MULTILINE
    )
    assert rates == ["project", "PIL", "Grain with PIL"]
    assert re.search(r"^host +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.MULTILINE)


def test_a_training_that_fails_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["data", "--config.objectives=nonsense"])
    assert "the training failed: train.py:" in capsys.readouterr().err
