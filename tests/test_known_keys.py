"""A config file sets no key that nobody reads."""

import importlib
import re

import numpy as np
import pytest

from configs import rkd_adv
from fairkd_jax.configs.known_keys import check_known_keys, check_types
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "many"),
        ("epochs", None),
        ("seed", 1.5),
        ("seed", True),
        ("batch_size", np.int64(4)),
        ("optimizer.learning_rate", "fast"),
        ("optimizer.learning_rate", np.ones(3)),
        ("augment.flip", "x"),
        ("objectives", None),
        ("data.source", 5),
        ("data.name", None),
        ("writer", print),
        ("cross_entropy.weight", "x"),
    ],
)
def test_a_value_of_another_type_is_refused_and_the_key_named(name, value):
    """A file can switch off the checks that ConfigDict makes."""
    with pytest.raises(UsageError, match=rf"sets {re.escape(name)} to '.*', an? \w+; the key is a \w+$"):
        check_types(config_with(name, value))
    for key, fitting in (("optimizer.learning_rate", 1), ("best.max_disparity", None), ("objectives", [])):
        check_types(config_with(key, fitting))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_types_of_the_projects_own_configs_pass(name):
    check_types(importlib.import_module(f"fairkd_jax.configs.{name}").get_config().to_dict())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(3)", "raised SystemExit(3)"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt()"),
        ("open('/nowhere/x')", "cannot be read ("),
        ("def get_config(words=''):\n    return get_config(words)", "RecursionError"),
        ("def get_config(words=''):\n    return {'a': 1}", "must return a ConfigDict, not {'a': 1}"),
        ("a: 1\nb: [2]", "has no function get_config"),
        ("get_config = 5", "'int' object is not callable"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
    ],
)
def test_a_faulty_file_is_one_line(forks, tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    ended = forks.run("train.py", "--config", tmp_path / "own.py")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert message in line
