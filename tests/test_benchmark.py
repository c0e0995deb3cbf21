"""The benchmarks run and print what they promise; what they measure is for scripts/benchmark.py itself."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import rkd, rkd_adv, student
from fairkd_jax.benchmarks import debiasing, waiting
from fairkd_jax.benchmarks.rounds import count_runs_within, measure_mean_seconds, run_in_turn
from fairkd_jax.programs.benchmark import main
from tests.programs import environment


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
    for name, value in environment().items():  # of the training that it starts
        monkeypatch.setenv(name, value)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.jpg")
    monkeypatch.setitem(waiting.run.__kwdefaults__, "caches", ("host",))
    # The command line of a real one is read in the last test of this file.
    small = ["--config=tests/training/stem_student.py", "--config.log_every_steps=1"]
    monkeypatch.setattr(waiting, "_make_options", lambda folder, *, large, with_teacher: small)
    short = [f"--config.{key}" for key in ("student.architecture=stem", "epochs=1", "batch_size=256")]
    short += ["--config.data.size=16", "--config.data.image_size=16"]
    assert main(["data", "--rounds=1", f"--source={tmp_path}", *short]) == 0
    printed = capsys.readouterr().out
    rates = re.findall(
        r"^(.+?)  +\d+ images/s of CPU time(?:   .* [\d.]+ times this)?$", printed, re.MULTILINE
    )
    assert rates == ["project", "PIL", "Grain with PIL"]
    assert re.search(r"^host +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.MULTILINE)


class Quarter:
    """Each run takes a quarter of a second."""

    def measure_seconds(self, runs):
        return 0.25 * runs


def test_seconds_are_those_of_one_run():
    assert [measure_mean_seconds(Quarter(), runs) for runs in (1, 4, 10)] == [0.25] * 3
    assert [count_runs_within(Quarter(), seconds) for seconds in (0.1, 1.0, 5.0)] == [1, 4, 20]
    times = iter(range(6))
    turns = run_in_turn({"a": lambda: next(times), "b": lambda: next(times)}, rounds=3)
    assert turns == {"a": [0, 2, 4], "b": [1, 3, 5]}


def test_each_seed_has_a_teacher_of_its_own_for_all_methods(tmp_path, monkeypatch):
    trained, evaluated, asked = {}, [], {"student": student, "rkd": rkd, "rkd_adv": rkd_adv}

    def make(arm, seed):
        config = asked[arm].get_config()
        config.seed = seed
        return config

    def train(config, workdir, name):
        assert workdir not in trained
        trained[workdir] = config

    monkeypatch.setattr(debiasing, "train", train)
    monkeypatch.setattr(debiasing, "evaluate_run", lambda workdir, probe: evaluated.append((workdir, probe)))
    seeds = (3, 1, 8)
    folders = debiasing.train_all(make, list(asked), seeds, tmp_path)
    order, teachers = list(trained), {}
    for arm in asked:
        assert [trained[run].seed for run in folders[arm]] == list(seeds)
        for run in folders[arm]:
            config = trained.pop(run)
            assert config.objectives == make(arm, 0).objectives
            teachers.setdefault(Path(config.teacher.checkpoint), []).append((config.seed, order.index(run)))
    # What is left are teachers: each trained with the seed of those that learn from it, and before them.
    assert trained.keys() == teachers.keys()
    for teacher, learners in teachers.items():
        assert {seed for seed, _ in learners} == {trained[teacher].seed}
        assert len(learners) == len(asked)
        assert order.index(teacher) < min(place for _, place in learners)
        assert not trained[teacher].teacher.checkpoint
    assert sorted(evaluated) == sorted((run, True) for runs in folders.values() for run in runs)


def test_a_training_that_fails_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["data", "--config.objectives=nonsense"])
    assert "the training failed: fairkd-train: unknown objective 'nonsense'" in capsys.readouterr().err
