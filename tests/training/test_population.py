"""A population as a run: each member is its lone run, whatever happens to the others."""

import signal

import jax
import numpy as np
import pytest

from configs import ckd_adv, student
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.training import Diverged, MembersDiverged, Stopped, loop, train
from fairkd_jax.training.chunks import forget_half_saved, split_into_chunks
from tests.training.runs import ONE, last_student, lines_of

pytestmark = pytest.mark.usefixtures("built_once")


def swept(make_config, taught, **changes):
    config = make_config(ckd_adv, **changes)
    config.teacher.checkpoint = str(taught)
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 0.02
    config.batch_size = 104  # 21 steps
    return config


@pytest.fixture(scope="module")
def lone(make_config, make_once, taught):
    """Two lone runs that learn from one teacher."""

    def make(folder):
        train(swept(make_config, taught), folder / "first", devices=ONE)
        config = swept(make_config, taught, seed=1)
        config.adversary.weight = 0.0
        train(config, folder / "second", devices=ONE)

    return make_once("lone", make)


def assert_same_run(member, other, atol=1e-5):
    """Parameters after SGD, every logged number, and every prediction of two runs."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=atol), last_student(member), last_student(other)
    )
    ours, theirs = lines_of(member), lines_of(other)
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for key in ("loss", "adversary/loss", "learning_rate", "validation/cross_entropy", "student/warnings"):
        found, wanted = ([line[key] for line in lines if key in line] for lines in (ours, theirs))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=key)
    results = [evaluate_run(folder, devices=ONE) for folder in (member, other)]
    assert results[0]["student"]["accuracy"] == results[1]["student"]["accuracy"]
    probabilities = [
        np.load(folder / "predictions" / "test.npz")["student_probabilities"] for folder in (member, other)
    ]
    np.testing.assert_allclose(*probabilities, atol=1e-4)


@pytest.fixture
def population(make_config, taught):
    config = swept(make_config, taught)
    config.population.weights.adversary = (1.0, 0.0)
    config.population.seeds = (0, 1)
    return config


def of(workdir, weight, seed):
    return workdir / "members" / f"adversary.weight={weight},seed={seed}"


@pytest.mark.slow
def test_a_member_is_its_lone_run(population, lone, tmp_path):
    """Weights and seeds of their own, on eight devices, two for each member; on one: the next test."""
    train(population, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "members").iterdir()) == sorted(
        student.name for student in parse_recipe(population).students
    )
    assert_same_run(of(tmp_path / "run", 1.0, 0), lone / "first")
    assert_same_run(of(tmp_path / "run", 0.0, 1), lone / "second")
    # To later tools it is a lone run of that config.
    config = read_run_config(of(tmp_path / "run", 0.0, 1)).config
    assert not config["population"]["seeds"] + config["population"]["weights"]["adversary"]
    assert (config["seed"], config["adversary"]["weight"]) == (1, 0.0)


@pytest.mark.slow
def test_a_stopped_population_goes_on_together(population, lone, tmp_path, monkeypatch, capsys):
    """Stopped at step 7, and killed while the members of step 8 were being saved."""
    population.checkpoint_every_steps = 4
    read, number = loop.read_from_device, iter(range(1000))

    def reading(tree):
        if next(number) == 5:
            signal.raise_signal(signal.SIGINT)
        return read(tree)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "read_from_device", reading)
        with pytest.raises(Stopped):
            train(population, tmp_path / "run", devices=ONE)
    saved, save = [], Checkpoints.save_last

    def saving(self, step, *items):
        if step == 8 and len(saved) == 2:
            raise KeyboardInterrupt
        saved.extend([step] * (step == 8))
        save(self, step, *items)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_last", saving)
        with pytest.raises(KeyboardInterrupt):
            train(population, tmp_path / "run", devices=ONE)
    capsys.readouterr()
    train(population, tmp_path / "run", devices=ONE)
    said = capsys.readouterr()
    assert "4 to train in 1 wave(s)" in said.out  # not in one for each step that members have
    assert "going on from step 7 of 21" in said.err  # the last one that all of them have
    for member, other in (((1.0, 0), "first"), ((0.0, 1), "second")):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            last_student(of(tmp_path / "run", *member)),
            last_student(lone / other),
        )
    steps = [line["step"] for line in lines_of(of(tmp_path / "run", 1.0, 0)) if "loss" in line]
    assert steps == [*range(2, 21, 2), 21]


def unclipped(make_config, **changes):
    config = make_config(student, log_every_steps=1, checkpoint_every_steps=2, **changes)
    config.optimizer.name, config.optimizer.clip_norm = "sgd", 0.0
    return config


@pytest.fixture(scope="module")
def unharmed(make_config, make_once):
    """A lone run whose learning rate is not too high."""
    config = unclipped(make_config, optimizer__learning_rate=0.01)
    return make_once("unharmed", lambda folder: train(config, folder, devices=ONE))


@pytest.mark.parametrize("wave_size", [0, 1])
def test_a_member_that_diverges_leaves_the_others_alone(wave_size, make_config, unharmed, tmp_path, capsys):
    """Also where it is all of a wave, and others come after it."""
    config = unclipped(make_config)
    config.population.learning_rates, config.population.wave_size = (1e30, 0.01), wave_size
    with pytest.raises(
        MembersDiverged, match=r"1 of 2 members diverged: optimizer.learning_rate=1e\+30; the other members"
    ) as error:
        train(config, tmp_path / "run", devices=ONE)
    assert error.value.complete == ("optimizer.learning_rate=0.01",)
    good, bad = ((tmp_path / "run" / "members" / f"optimizer.learning_rate={x}") for x in ("0.01", "1e+30"))
    assert "not finite" in (bad / "diverged.txt").read_text()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        last_student(good),
        last_student(unharmed),
    )
    # Started again, nothing is trained, and what happened is not forgotten.
    capsys.readouterr()
    with pytest.raises(Diverged, match="1 of 2 members diverged"):
        train(config, tmp_path / "run", devices=ONE)
    assert "2 members, 1 complete, 0 to train" in capsys.readouterr().out


def test_waves_train_the_same_members(make_config, tmp_path, capsys):
    config = make_config(student)
    config.population.seeds, config.population.wave_size = (0, 1, 2), 1
    train(config, tmp_path / "run", devices=ONE)
    assert "3 members, 0 complete, 3 to train in 3 wave(s)" in capsys.readouterr().out
    for seed in range(3):
        assert max(Checkpoints(tmp_path / "run" / "members" / f"seed={seed}").steps()) == 8
    train(config, tmp_path / "run", devices=ONE)
    assert "3 members, 3 complete, 0 to train" in capsys.readouterr().out


def test_members_that_cannot_go_on_together_train_in_waves_of_their_own():
    saved = {"a": frozenset({4, 8}), "b": frozenset({4}), "c": frozenset({4, 8})}
    assert split_into_chunks(saved, 0) == [["a", "b", "c"]]
    assert split_into_chunks(saved | {"d": frozenset()}, 0) == [["a", "c"], ["b"], ["d"]]
    assert split_into_chunks(dict.fromkeys("abc", frozenset()), 2) == [["a", "b"], ["c"]]
    assert split_into_chunks({}, 2) == []


def test_members_that_were_killed_in_their_first_save_begin_again_as_one():
    new, first, later = frozenset(), frozenset({4}), frozenset({4, 8})
    half = {"a": first, "b": new, "c": first}
    assert split_into_chunks(forget_half_saved(half, set("abc")), 0) == [["a", "b", "c"]]
    waves = half | {"d": new, "e": new}  # which have not begun
    assert split_into_chunks(forget_half_saved(waves, set("abc")), 3) == [["a", "b", "c"], ["d", "e"]]
    # A member that was added later, or comes in a later wave, takes nothing from the others.
    for saved, started in (
        ({"a": first, "b": first, "c": new}, set("ab")),
        ({"a": later, "b": later, "c": new}, set("abc")),
        ({"a": later, "b": first}, set("ab")),
        ({"a": new, "b": new}, set("ab")),
    ):
        assert forget_half_saved(saved, started) == saved


def test_a_population_killed_in_its_first_save_ends_as_one_that_was_not(
    make_config, tmp_path, monkeypatch, capsys
):
    config = make_config(student, checkpoint_every_steps=4)
    config.population.seeds = (0, 1)
    train(config, tmp_path / "whole", devices=ONE)
    saved, save = [], Checkpoints.save_last

    def saving(self, step, *items):
        if saved:
            raise KeyboardInterrupt
        saved.append(step)
        save(self, step, *items)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_last", saving)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "killed", devices=ONE)
    capsys.readouterr()
    train(config, tmp_path / "killed", devices=ONE)
    assert "0 complete, 2 to train in 1 wave(s)" in capsys.readouterr().out
    for name in ("seed=0", "seed=1"):
        ours, theirs = (last_student(tmp_path / run / "members" / name) for run in ("killed", "whole"))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"adversary": (0.0, 0.0)}}, "adversary.weight has 0.0, 0.0, one of them twice"),
        ({"weights": {"mfd": (1.0,)}}, "population.weights.mfd: mfd is none of the run's objectives"),
        ({"weights": {"adversary": (-1.0,)}}, "adversary.weight=-1.0 must be 0 or more"),
        ({"seeds": ("a",)}, "population: seed cannot be 'a'"),
        ({"seeds": (0.5,)}, "population: seed cannot be 0.5"),
        ({"learning_rates": (1, 1.0)}, "one of them twice"),
    ],
)
def test_what_is_wrong_with_a_population_is_said_before_it_starts(change, message, make_config):
    config = make_config(ckd_adv)
    for key, value in change.items():
        if key == "weights":
            for name, values in value.items():
                config.population.weights[name] = values
        else:
            config.population[key] = value
    with pytest.raises(UsageError, match=message):
        parse_recipe(config)
