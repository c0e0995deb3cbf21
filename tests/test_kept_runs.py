"""Runs that an earlier version left: they are evaluated, compared, loaded, and go on, as if made today."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import rkd_adv, sweep
from fairkd_jax.errors import UsageError
from fairkd_jax.training import train, write_class_means
from tests.kept.make import small
from tests.programs import ROOT, run_program
from tests.training.runs import ONE, last_student, lines_of

WITHOUT_JAX = f"""
import runpy, sys

sys.modules["jax"] = None  # an import fails
sys.argv[0] = {str(ROOT / "scripts" / "compare_runs.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def copied(kept, tmp_path):
    """Copies a run, to train or to evaluate in."""
    return lambda name: shutil.copytree(kept / name, tmp_path / name)


@pytest.fixture
def make_small(kept, data_directory):
    """Makes the config that such a run was trained with."""

    def make(module):
        config = small(module)
        config.data.directory = data_directory
        config.teacher.checkpoint = str(kept / "rkd_adv" / "teacher")
        return config

    return make


def evaluated(folder):
    """What an evaluation on the test images has written."""
    with np.load(folder / "predictions" / "test.npz", allow_pickle=False) as arrays:
        return json.loads((folder / "eval" / "test.json").read_text()), dict(arrays)


def test_a_kept_run_is_evaluated_as_it_was_then(forks, kept, copied, data_directory):
    folder = copied("rkd_adv")
    (folder / "eval" / "test.json").unlink()
    arguments = ("--workdir", folder, "--baseline", kept / "rkd_adv" / "baseline", "--batch_size", 10**9)
    ended = forks.run("eval.py", *arguments, FAIRKD_DATA=data_directory)
    assert ended.returncode == 0, ended.stderr
    (then, old), (now, new) = evaluated(kept / "rkd_adv"), evaluated(folder)
    assert old.keys() <= new.keys()
    for key, array in old.items():
        if array.dtype == np.float32:
            np.testing.assert_allclose(new[key], array, atol=2e-4, err_msg=key)
        else:
            np.testing.assert_array_equal(new[key], array, err_msg=key)
    assert then.keys() <= now.keys()
    for name in ("teacher", "student", "baseline"):
        for key in ("accuracy", "mean_abs_disparity", "corrected_interval", "parameters", "objectives"):
            assert now[name][key] == then[name][key], (name, key)


def test_kept_runs_are_compared_as_they_were_then(kept, tmp_path):
    """Without JAX, whose import takes seconds."""
    folders = (kept / "rkd_adv", kept / "rkd_adv" / "baseline")
    ended = run_program("-c", WITHOUT_JAX, *folders, "--json", tmp_path / "compare.json")
    assert ended.returncode == 0, ended.stderr
    then, now = (json.loads((place / "compare.json").read_text()) for place in (kept, tmp_path))
    assert now.pop("checkpoint") == "best"  # which it was then without a word
    for arm in (*then["arms"], *now["arms"]):
        for run in arm["runs"]:
            del run["folder"]  # it has moved
            assert run.pop("step", 34) == 34
    assert now == then


def test_the_class_means_of_a_kept_teacher_are_found(kept, data_directory, monkeypatch):
    monkeypatch.setenv("FAIRKD_DATA", data_directory)
    teacher = kept / "rkd_adv" / "teacher"
    before = (teacher / "class_means.npz").stat()
    found = write_class_means(teacher, devices=ONE)
    assert (teacher / "class_means.npz").stat() == before  # they were not computed again
    assert found.means.shape == (10, 288)
    assert found.class_names.tolist() == list("0123456789")


def last_arrays(folder):
    step, student = last_student(folder)
    return step, jax.tree.map(np.asarray, student)


def assert_same_student(folder, other):
    (step, student), (other_step, expected) = last_arrays(folder), last_arrays(other)
    assert step == other_step
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), student, expected)


def test_a_kept_run_goes_on_to_the_same_end(kept, copied, make_small):
    folder = copied("stopped")
    train(make_small(rkd_adv), folder, devices=ONE)
    assert [line["step"] for line in lines_of(folder) if "loss" in line] == [10, 20, 30, 34]
    assert_same_student(folder, kept / "rkd_adv")


def test_a_kept_population_goes_on_to_the_same_end(kept, copied, make_small):
    folder = copied("population")
    config = make_small(sweep)
    config.population.weights.adversary, config.population.seeds = (0.0, 1.0), ()
    train(config, folder, devices=ONE)
    assert_same_student(folder / "members" / "adversary.weight=0.0", kept / "rkd_adv" / "baseline")
    assert_same_student(folder / "members" / "adversary.weight=1.0", kept / "rkd_adv")


def test_another_config_is_refused_in_a_kept_folder(copied, make_small):
    config = make_small(rkd_adv)
    config.optimizer.learning_rate = 0.2
    with pytest.raises(UsageError) as refused:
        train(config, copied("stopped"), devices=ONE)
    assert "another config: optimizer.learning_rate (was 0.1, now 0.2); choose" in str(refused.value)
