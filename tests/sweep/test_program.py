"""scripts/sweep.py as users start it."""

import dataclasses
import functools
import shlex

import pytest

from fairkd_jax.recipe.sections import ModelRecipe
from tests.sweep.conftest import write_run

CONFIG = "--config=configs/rkd_adv.py"
GRID = ("--grid", "adversary.weight=0,0.5", "--grid=seed=0,1")


@pytest.fixture
def start(forks):
    return functools.partial(forks.run, "scripts/sweep.py")


def test_a_dry_run_prints_a_command_a_line(start, tmp_path):
    shown = start(CONFIG, *GRID, "--config.epochs=2", "--dry_run", f"--workdir={tmp_path}", "--evaluate")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(line)
        assert words[:5] == ["python", "-m", "fairkd_jax", "train", CONFIG]
        assert "--config.epochs=2" in words or "/teachers/" in line
    assert sum("fairkd_jax eval" in line for line in lines) == 4
    assert shown.stderr == (
        "sweep.py: 6 commands; 0 runs already complete; start the other lines only after the first 2 lines"
        " (teachers) have succeeded\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_config_is_found_by_its_name_from_any_folder(start, tmp_path):
    arguments = ("--config", "rkd:sampling", "--grid=seed=0,1", "--config.epochs=2", "--dry_run")
    shown = start(*arguments, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = [shlex.split(line) for line in shown.stdout.splitlines()]
    assert len(lines) == 4
    folders = {words[-1].removeprefix("--workdir=") for words in lines if "/teachers/" not in words[-1]}
    assert folders == {f"runs/sweep-rkd_sampling/seed={seed}" for seed in (0, 1)}
    for words in lines:
        assert words[3:5] == ["train", "--config=rkd:sampling"]


def test_a_mistake_is_one_line_before_anything_starts(start):
    refused = start(CONFIG, "--grid=adversary.weigt=1,2")
    assert refused.returncode == 2
    assert refused.stderr.startswith('sweep.py: --grid: unknown key weigt. Did you mean "weight"')
    assert len(refused.stderr.splitlines()) == 1
    assert not refused.stdout


def test_the_summary_is_printed_and_written(start, tmp_path):
    config = {"seed": 3, "objectives": ["ckd"], "batch_size": 8, "epochs": 1, "teacher": {}, "data": {}}
    config |= {
        "student": dict.fromkeys(field.name for field in dataclasses.fields(ModelRecipe)),
        "optimizer": {},
    }
    write_run(tmp_path / "a", config, scores=[("test", {}), ("val", {})])
    printed = start("--summary", tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert "Chosen: a (seeds 3)" in printed.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"a", "summary.csv", "summary.parquet"}
