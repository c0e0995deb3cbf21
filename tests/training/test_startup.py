"""What a run must not do: trace twice, or send data to the device unasked.

Reads of the device are not guarded on a CPU; tests of whole runs count them (`read_from_device`).
"""

import functools
from collections import Counter

import jax
import numpy as np
import pytest

from configs import ckd
from fairkd_jax.objectives import OBJECTIVES
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.training import build, loop, train
from fairkd_jax.training import run as training_run

ONE = jax.devices()[:1]


@pytest.fixture
def traces(monkeypatch):
    """The names of the programs of a run, each as often as it is traced."""
    found = []

    def counted(make, name):
        def made(*args, **options):
            function = make(*args, **options)

            def traced(*arguments):
                found.append(name)
                return function(*arguments)

            return traced

        return made

    for name in ("make_train_step", "make_eval_step"):
        monkeypatch.setattr(build, name, counted(getattr(build, name), name))
    return found


@pytest.mark.parametrize("cache", ["device", "none"])
def test_a_run_traces_once_and_sends_nothing_unasked(cache, traces, make_config, tmp_path, monkeypatch):
    """Two validations, checkpoints between, and a last batch of validation that is not full."""
    inside = []
    advance = loop._Loop.advance

    def guarded(run, batch):
        assert all(isinstance(value, jax.Array) for value in batch.values())
        with jax.transfer_guard("disallow"):
            advance(run, batch)
        inside.append(run.step)

    monkeypatch.setattr(loop._Loop, "advance", guarded)
    train(make_config(data__cache=cache, checkpoint_every_steps=3), tmp_path / "run", devices=ONE)
    assert inside == list(range(1, 9))
    assert sorted(traces) == ["make_eval_step", "make_train_step"]


def test_the_guard_of_the_test_above_can_fail():
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device"):
        jax.jit(lambda x: x + 1)(np.ones(3))


def test_a_teacher_sees_images_of_its_own_size(make_config, tmp_path):
    short = {"epochs": 1, "teacher__epochs": 1}
    config = make_config(ckd, teacher__image_size=24, data__image_size=16, **short)
    train(config, tmp_path / "run", devices=ONE)
    own = read_run_config(tmp_path / "run" / "teacher").config
    assert own["data"]["image_size"] == 24
    # Another student, of another size, takes what the teacher was trained on from the teacher's folder.
    taught = []
    real = build.make_train_step

    def seen(**options):
        taught.append(options["augment_for_teacher"])
        return real(**options)

    build.make_train_step, restored = seen, real
    try:
        again = make_config(ckd, teacher__checkpoint=str(tmp_path / "run" / "teacher"), **short)
        train(again, tmp_path / "again", devices=ONE)
    finally:
        build.make_train_step = restored
    images = np.zeros((2, 32, 32, 3), np.uint8)
    assert taught[0](jax.random.key(0), images).shape == (2, 24, 24, 3)


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_a_config_is_parsed_and_its_objectives_are_made_once(
    seeds, taught, make_config, tmp_path, monkeypatch
):
    """And its objectives are made once, however many students there are."""
    made, parsed = Counter(), []

    def counted(name, factory):
        @functools.wraps(factory)  # its signature says which options it has
        def make(**options):
            made[name] += 1
            return factory(**options)

        return make

    for name, factory in OBJECTIVES.items():
        monkeypatch.setitem(OBJECTIVES, name, counted(name, factory))
    parse = training_run.parse_recipe
    monkeypatch.setattr(training_run, "parse_recipe", lambda config: parsed.append(config) or parse(config))
    config = make_config(ckd, teacher__checkpoint=str(taught), epochs=1)
    config.population.seeds = seeds
    train(config, tmp_path / "run", devices=ONE)
    assert len(parsed) == 1
    assert made == {"cross_entropy": 1, "ckd": 1}
