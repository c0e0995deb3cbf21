"""Every config with every preset and debiasing word: complete, and one whole step traces."""

import importlib.util
import inspect
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.configs import base
from fairkd_jax.configs.debiasing import DEBIASING
from fairkd_jax.configs.names import CONFIGS
from fairkd_jax.configs.presets import DEFAULT_PRESET, PRESETS
from fairkd_jax.data.pipeline import DATASETS
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.objectives import OBJECTIVES
from fairkd_jax.programs import prepare_data
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.recipe.population import clear_population
from fairkd_jax.recipe.related import baseline_config, teacher_config
from fairkd_jax.recipe.sections import parse_model
from fairkd_jax.recipe.values import normalize
from fairkd_jax.runs.folder import config_diff, to_json_dict
from fairkd_jax.runs.loading import LoadedModel
from fairkd_jax.training.build import build_program
from fairkd_jax.training.checks import check_recipe
from fairkd_jax.training.context import RunContext
from tests.models.toy import STEMS

FOLDER = Path(__file__).parent.parent / "configs"
# Every config, and every debiasing word on a config without debiasing.
ALL = [(name, "") for name in CONFIGS] + [("rkd", word) for word in DEBIASING if word != "adv"]


def load(name, words=""):
    spec = importlib.util.spec_from_file_location(f"config_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(words)
    config.lock()
    return config


class Images:
    """Stands for a split: nothing but what a program asks of it before it runs."""

    name, cache, counts = "train", "none", np.array([[100, 20, 60], [20, 100, 60]])

    def __len__(self):
        return 360


class Data:
    """Stands for a data set of three classes and two groups."""

    class info:
        name, class_names, group_names = "stand-in", ("a", "b", "c"), ("g", "h")

    def split(self, name):
        return Images()


# Every config on digits; the presets change data, models and schedule alone.
STEPS = [*ALL, *(("rkd_adv", preset) for preset in PRESETS if preset != DEFAULT_PRESET)]
STEPS += [("kdpp_adv", "utkface"), ("kdpp_adv", "manifest")]


@pytest.mark.parametrize(("name", "words"), STEPS)
def test_a_whole_step_traces(name, words, monkeypatch):
    config = normalize(load(name, words))
    check_recipe(parse_recipe(config))
    if words not in PRESETS and name != "rkd_adv":  # the networks are traced often enough
        for stem, architecture in STEMS.items():
            monkeypatch.setitem(ARCHITECTURES, stem, architecture)
        config.student.architecture, config.teacher.architecture = "stem", "wide_stem"
    mesh = make_mesh(jax.devices()[:1])
    teacher = None
    config.log_every_steps, config.checkpoint_every_steps = 7, 11
    recipe = parse_recipe(config)
    if recipe.uses_teacher:
        module = recipe.teacher.model.create(3)
        size = config.data.image_size
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        teacher = LoadedModel(module, variables, config.teacher.architecture, size, 0)
    means = None
    if recipe.uses_class_means:
        means = np.ones((3, module.architecture.head))
    run = RunContext(Path(), recipe, Data(), name=name, teacher=teacher, class_means=means)
    if recipe.is_population:  # how members differ is another test's
        recipe = parse_recipe(clear_population(config))
        run = RunContext(Path(), recipe, Data(), name=name, teacher=teacher, class_means=means)
    program = build_program(run, mesh)
    assert (program.log_every, program.checkpoint_every) == (7, 11)
    # Checkpoints hold plain numbers: no typed keys, no objects.
    assert all(np.issubdtype(x.dtype, np.number) for x in jax.tree.leaves(program.abstract_state))
    rows, stored = config.batch_size, config.data.size
    batch = {
        "image": jax.ShapeDtypeStruct((rows, stored, stored, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "group": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "index": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }
    state, metrics = jax.eval_shape(
        program.step, program.abstract_state, program.teacher_variables, batch, program.weights
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), program.abstract_state
    )
    assert {f"{objective}/loss" for objective in config.objectives} <= metrics.keys()


def test_every_objective_has_its_section_with_its_options():
    config = base.get_config()
    for name, factory in OBJECTIVES.items():
        options = set(inspect.signature(factory).parameters)
        assert options <= set(config[name]), name
        assert set(config[name]) - options == {"weight"}, name


def test_every_objective_and_data_set_is_reached_by_a_config():
    assert {name for names in ALL for name in load(*names).objectives} == set(OBJECTIVES)
    assert {load("student", preset).data.name for preset in PRESETS} == set(DATASETS)


def test_what_is_prepared_by_the_script_is_found_by_a_training():
    for preset in PRESETS:
        data = load("student", preset).data
        assert prepare_data.PRESET_SIZES[data.name] == data.size


def test_a_debiasing_word_changes_nothing_else():
    for word in DEBIASING:
        for distilled in ("ckd", "rkd"):
            changed = config_diff(*(to_json_dict(load(distilled, words)) for words in ("", word)))
            assert 1 <= len(changed) <= 2, changed


def test_no_two_files_train_the_same():
    configs = {names: to_json_dict(load(*names)) for names in ALL}
    for name, other in itertools.combinations(configs, 2):
        assert config_diff(configs[name], configs[other]), (name, other)


def test_a_teacher_is_trained_in_the_same_way_whatever_its_students_are():
    """Also of a config with a bound on the student's disparity, or one that stands for several students."""
    expected = to_json_dict(teacher_config(normalize(load("student"))))
    for name, words in ALL:
        config = normalize(load(name, words))
        config.best.max_disparity, config.cross_entropy.weight = 0.05, 0.3
        config.population.seeds, config.population.wave_size = (3, 4), 1
        config.population.weights.cross_entropy = (0.1, 0.2)
        before = config.to_json()
        teacher = teacher_config(config)
        parse_recipe(teacher)
        assert config.to_json() == before
        assert not parse_recipe(teacher).is_population
        changed = {line.partition(" (was ")[0] for line in config_diff(expected, to_json_dict(teacher))}
        # But for the data, which students share, and the options of objectives that a teacher does not use.
        of_others = {f"{objective}." for objective in OBJECTIVES if objective != "cross_entropy"}
        assert {key for key in changed if not key.startswith(("data.", *of_others))} == set(), (name, words)
        assert teacher.best.max_disparity is None
        assert not teacher.data.balance_groups


def test_members_learn_with_what_their_folders_say():
    config = normalize(load("student"))
    config.objectives = ("cross_entropy", "adversary")
    config.population.weights.adversary, config.population.weights.cross_entropy = (2.0, 0.0), (1.0, 0.25)
    config.population.learning_rates, config.population.seeds = (0.01, 0.02, 0.04), (7, 3)
    config.optimizer.learning_rate = 0.02
    recipe = parse_recipe(config)
    members = [student.name for student in recipe.students]
    program = build_program(RunContext(Path(), recipe, Data()), make_mesh(jax.devices()[:1]))
    said = [dict(part.split("=") for part in name.split(",")) for name in members]
    assert len(said) == program.members == 24
    for name in config.objectives:
        expected = [float(values[f"{name}.weight"]) for values in said]
        np.testing.assert_array_equal(program.weights[name], np.float32(expected))
    rates = np.array([float(values["optimizer.learning_rate"]) for values in said])
    np.testing.assert_allclose(program.weights["learning_rate"], rates / 0.02, rtol=1e-6)
    np.testing.assert_allclose(program.learning_rates.max(axis=1), rates, rtol=0.01)


def test_a_baseline_is_without_debiasing(tmp_path):
    for way in DEBIASING:
        config = normalize(load("rkd", way))
        config.teacher.pretrained, config.teacher.image_size = "/weights.pth", 64
        baseline = baseline_config(parse_recipe(config), tmp_path)
        parse_recipe(baseline)
        assert baseline.teacher.checkpoint == str(tmp_path)
        for name in set(baseline.objectives) - set(load("rkd").objectives):
            assert baseline[name].weight == 0.0
        for section, key in (("cross_entropy", "balanced"), ("data", "balance_groups")):
            assert not baseline[section][key]
        assert not baseline.student.group_heads
    with pytest.raises(UsageError, match="the run without debiasing, and this one has none"):
        baseline_config(parse_recipe(load("rkd")), None)


def test_a_critic_needs_labels():
    config = normalize(load("rkd", "critic"))
    config.objectives = ("rkd_distance", "bias_critic")
    with pytest.raises(UsageError, match="bias_critic multiplies the loss of the labels"):
        parse_recipe(config)


def test_an_unknown_preset_is_named():
    with pytest.raises(
        ValueError, match="unknown preset 'faces'; the presets are digits, utkface, wider, manifest"
    ):
        base.get_config("faces")


def test_the_digits_teacher_is_three_times_the_student():
    config = base.get_config()
    sizes = []
    for section in (config.student, config.teacher):
        module = parse_model(section).create(10)
        variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(variables["params"])))
    assert sizes[1] >= 3 * sizes[0]
