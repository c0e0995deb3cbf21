"""A config file sets no key that nobody reads."""

import importlib

import pytest

from configs import rkd_adv
from fairkd_jax.configs.known_keys import check_known_keys
from fairkd_jax.configs.names import CONFIGS
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import OBJECTIVES


def config_with(name, value=1):
    """A config with one key more, as a file would set it."""
    config = rkd_adv.get_config().unlock().to_dict()
    *sections, key = name.split(".")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_the_projects_own_configs_pass(name):
    check_known_keys(importlib.import_module(f"fairkd_jax.configs.{name}").get_config().to_dict())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("batch_sise", "batch_size"),
        ("objective", "objectives"),
        ("adversery.weight", "adversary.weight"),
        ("adversary.wight", "adversary.weight"),
        ("ckd.temprature", "ckd.temperature"),
        ("data.image_siz", "data.image_size"),
        ("augment.flp", "augment.flip"),
        ("student.architectur", "student.architecture"),
        ("teacher.epoch", "teacher.epochs"),
        ("population.weights.adversry", "population.weights.adversary"),
        ("population.seed", "population.seeds"),
        ("best.max_disparty", "best.max_disparity"),
    ],
)
def test_a_typo_is_refused_and_the_key_that_was_meant_named(name, meant):
    with pytest.raises(UsageError) as refused:
        check_known_keys(config_with(name))
    assert str(refused.value) == f"the config file sets the unknown key {name}; did you mean {meant}?"


def test_what_resembles_nothing_is_refused_too():
    for name, value in (("qqq", 1), ("zzz", {})):
        with pytest.raises(UsageError, match=f"the unknown key {name}; fairkd-train --list prints all keys"):
            check_known_keys(config_with(name, value))


def test_a_key_that_is_missing_is_named():
    config = rkd_adv.get_config().to_dict()
    del config["optimizer"]["learning_rate"]
    with pytest.raises(UsageError, match=r"lacks the key optimizer\.learning_rate; start from"):
        check_known_keys(config)


def test_the_section_of_an_objective_of_ones_own_has_its_weight_and_its_arguments(monkeypatch):
    with pytest.raises(UsageError, match="unknown key similarity"):
        check_known_keys(config_with("similarity", {"weight": 1.0}))
    monkeypatch.setitem(OBJECTIVES, "similarity", lambda *, power=2.0: None)
    check_known_keys(config_with("similarity", {"weight": 1.0, "power": 3.0}))
    check_known_keys(config_with("population.weights.similarity", ()))
    with pytest.raises(UsageError, match=r"similarity\.pow; did you mean similarity\.power\?"):
        check_known_keys(config_with("similarity", {"weight": 1.0, "pow": 3.0}))
