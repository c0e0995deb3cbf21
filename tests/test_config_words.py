"""What `--config` may say: names, words behind the colon, and what `--list` prints of them."""

import fnmatch
import importlib
import itertools
import json
import tomllib
from pathlib import Path

import pytest

from fairkd_jax.configs import base, rkd
from fairkd_jax.configs.debiasing import ADVERSARY_FORMS, DEBIASING
from fairkd_jax.configs.keys import list_options, read_arguments
from fairkd_jax.configs.listing import format_listing, read_summary
from fairkd_jax.configs.names import CONFIGS, FOLDER, find_file, make_run_name
from fairkd_jax.configs.presets import PRESETS
from fairkd_jax.configs.words import accept_words, parse_words
from fairkd_jax.errors import UsageError
from fairkd_jax.models import MODEL_NAMES
from fairkd_jax.objectives import OBJECTIVES
from tests.programs import run_program

ROOT = Path(__file__).parent.parent
KEPT = json.loads((Path(__file__).parent / "kept" / "configs.json").read_text())
ADDED = {
    "writer": "",
    "optimizer.restart": False,
    "data.manifest.missing": [],
    "data.max_file_mib": 32.0,
    "data.allow_duplicates": False,
    **{f"{model}.head": "auto" for model in ("student", "teacher")},
    **{f"{model}.norm_epsilon": None for model in ("student", "teacher")},
    "checkpoints.keep": 1,
    "checkpoints.keep_every_epochs": 0,
}  # keys that these configs did not have, with the behaviour of that time
KEPT["base"] |= ADDED


def load(name, words=""):
    return importlib.import_module(f"fairkd_jax.configs.{name}").get_config(words)


def flatten(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("file", [name for name in KEPT["changes"] if ":" not in name])
def test_every_earlier_config_is_the_same_in_its_present_spelling(file):
    """`tests/kept/configs.json` has the values of 34 files, of which a debiasing word has replaced 14."""
    name, _, word = file.partition("_")
    name, word = (file, "") if file in CONFIGS else (name, word)
    for preset in ("", "utkface", "wider", "manifest"):
        expected = KEPT["base"] | KEPT["presets"].get(preset, {}) | KEPT["changes"][file]
        expected |= KEPT["changes"].get(f"{file}:{preset}", {})
        found = dict(flatten(load(name, f"{preset},{word}").to_dict()))
        assert found.keys() == expected.keys()
        # As text, in which 1 and 1.0 differ.
        assert {k: json.dumps(v) for k, v in found.items()} == {k: json.dumps(v) for k, v in expected.items()}


def test_empty_keys_have_a_type_and_belong_to_one_config():
    config, other = load("student"), load("student")
    empty = {key.name: key.default for key in base.list_keys() if isinstance(key.default, type)}
    assert set(empty) == {name for name, value in KEPT["base"].items() if value is None}
    for name, kind in empty.items():
        section, _, key = name.rpartition(".")
        assert config[section].get_type(key) is kind
        config[section][key] = kind(1)
        assert other[section][key] is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rkd_adv", "rkd_adv"),
        ("configs/rkd_adv.py", "rkd_adv"),
        ("/elsewhere/configs/rkd_adv.py:utkface", "rkd_adv-utkface"),
        ("rkd_adv:digits", "rkd_adv"),
        ("configs/rkd.py:utkface,mfd", "rkd_mfd-utkface"),
        ("configs/rkd.py:mfd,utkface", "rkd_mfd-utkface"),
        ("rkd:mfd", "rkd_mfd"),
        ("rkd:adv", "rkd_adv"),
        ("rkd_adv:utkface,sampling", "rkd_adv_sampling-utkface"),
        ("rkd:sampling,adv", "rkd_adv_sampling"),
        ("ckd: critic, heads ,wider", "ckd_heads_critic-wider"),
        ("similarity.py:my words", "similarity-my words"),
        ("mine/similarity.py:adv", "similarity-adv"),  # a preset of the user's own
        ("similarity.py:digits", "similarity-digits"),
        ("similarity.py:mfd,utkface,adv", "similarity_adv_mfd-utkface"),
    ],
)
def test_a_run_has_one_name_whatever_the_order_of_the_words(text, name):
    assert make_run_name(text) == name


def test_the_table_of_debiasing_methods_has_a_config_for_each():
    code = """
from absl import flags
from fairkd_jax.programs import debiasing_table as table

flags.FLAGS(["table", "--preset=utkface"])
for distiller in table.DISTILLERS:
    for way in table.TITLES:
        config = table.make_config(f"{distiller}-{way}", 3)
        assert (config.seed, config.data.name) == (3, "utkface")
        print(distiller, way, *config.objectives)
"""
    ended = run_program("-c", code)
    assert ended.returncode == 0, ended.stderr
    made = [line.split() for line in ended.stdout.splitlines()]
    assert len(made) == 18
    assert ["rkd", "mfd", "cross_entropy", "rkd_distance", "rkd_angle", "mfd"] in made


def test_words_in_any_order_make_the_same_config():
    for words in itertools.permutations(("utkface", "heads", "mfd")):
        config, expected = load("rkd_adv", ",".join(words)), load("rkd_adv", "heads,mfd,utkface")
        assert config.to_json() == expected.to_json()
    assert load("rkd", "mfd,adv").to_json() == load("rkd_adv", "mfd").to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mfd,mfd", "mfd is there twice"),
        ("utkface,wider", "utkface and wider are presets, which exclude each other"),
        ("digits,wider", "digits and wider are presets"),
        ("projection,ratio", "ratio and projection are forms of the same adversary"),
        (
            "faces",
            "unknown word 'faces' behind the colon; the presets are digits, utkface, wider, manifest, and",
        ),
        ("faces", "the debiasing words are adv, ratio, projection, sampling, weights, heads, mfd, critic"),
    ],
)
def test_words_that_do_not_fit_are_refused(text, message):
    with pytest.raises(UsageError) as refused:
        parse_words(text)
    assert message in str(refused.value)


@pytest.mark.parametrize("word", ADVERSARY_FORMS)
def test_a_config_has_one_adversary(word):
    with pytest.raises(UsageError, match=f"write --config rkd:{word},mfd,utkface$"):
        load("rkd_adv", f"utkface,mfd,{word}")
    for name in ("sweep", "placebo", "positive_control"):
        with pytest.raises(UsageError, match=f"has an adversary already; leave out {word}"):
            load(name, word)


def test_a_file_of_a_user_has_debiasing_words_where_it_says_so():
    def get_config(preset=""):
        config = base.get_config(preset)
        config.objectives = ("cross_entropy", "dist")
        return config

    assert get_config("utkface").data.name == "utkface"
    with pytest.raises(UsageError, match="accepts a preset alone; add @accept_words"):
        get_config("mfd")
    assert accept_words(get_config)("mfd,utkface").objectives == ("cross_entropy", "dist", "mfd")


def test_a_name_is_found_without_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rkd").mkdir()  # not what the name means
    assert find_file("rkd") == str(FOLDER / "rkd.py")
    assert find_file("rkd:mfd,utkface") == f"{FOLDER / 'rkd.py'}:mfd,utkface"
    (tmp_path / "own.py").touch()
    assert find_file("own.py:my words") == "own.py:my words"
    (tmp_path / "rkd_mfd.py").touch()  # a file of the user's, which is there
    assert find_file("rkd_mfd.py") == "rkd_mfd.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rkd_mfd", "rkd_mfd is now --config rkd:mfd"),
        ("configs/rkd_mfd.py", "configs/rkd_mfd.py is now --config rkd:mfd"),
        ("configs/rkd_mfd.py:utkface", "configs/rkd_mfd.py is now --config rkd:mfd,utkface"),
        ("ckd_projection:wider,heads", "ckd_projection is now --config ckd:projection,heads,wider"),
        ("rkd_adv_sampling", "there is no config rkd_adv_sampling; write --config rkd_adv:sampling"),
        ("configs/dkd.py", "there is no config configs/dkd.py; write --config dkd"),
        ("none", f"there is no config none; the configs of the project are {', '.join(CONFIGS)}"),
        ("configs/none.py", "no config file configs/none.py; of this path, only "),
        ("words", "there is no config words; the configs of the project are student, "),
        ("", "there is no config ''; the configs"),
        ("rkd_adv_sampling_ratio", "write --config rkd:ratio,sampling"),
    ],
)
def test_a_config_that_is_not_there_is_one_line_with_what_is(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        find_file(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_top_level_has_a_thin_file_for_each_config():
    files = {path.stem: path for path in (ROOT / "configs").iterdir() if path.suffix}
    assert set(files) == {*CONFIGS, "base"}
    ours = {
        path.stem
        for path in FOLDER.glob("*.py")
        if "get_config = " in (text := path.read_text()) or "\ndef get_config" in text
    }
    assert ours == set(files)
    for name, path in files.items():
        assert not path.is_symlink()
        assert len(path.read_text().splitlines()) <= 5
        thin, own = (
            importlib.import_module(f"{place}.{name}") for place in ("configs", "fairkd_jax.configs")
        )
        assert thin.get_config is own.get_config


def test_every_key_has_a_default_and_a_meaning():
    keys = base.list_keys()
    assert sorted(key.name for key in keys) == sorted(dict(flatten(load("student").to_dict())))
    summaries = [key.meaning for key in keys] + [read_summary(name) for name in CONFIGS]
    summaries += [function.__doc__ for function in (*PRESETS.values(), *DEBIASING.values())]
    for text in summaries:
        assert len(text.split()) >= 3, text
        assert text.endswith("."), text
        assert "\n" not in text
    assert {key.name for key in base.WEIGHTS} == {f"{name}.weight" for name in OBJECTIVES}


def test_the_meaning_of_an_option_stands_in_the_docstring_of_its_factory():
    def factory(*, alpha=1.0, beta=(2, 3), gamma=None):
        """Makes nothing.

        Args:
          alpha: First line: with a colon,
            and a second line.
          beta: Another one.

        Raises:
          UsageError: Never.
        """

    alpha, beta, gamma = list_options("section", factory)
    assert alpha == ("section.alpha", 1.0, "First line: with a colon, and a second line.")
    assert beta == ("section.beta", (2, 3), "Another one.")
    assert gamma == ("section.gamma", None, "")
    assert read_arguments("No arguments.") == {}


def test_the_list_has_all_that_a_config_may_name():
    lines = format_listing().splitlines()
    for name in (*CONFIGS, *PRESETS, *DEBIASING):
        assert any(line.startswith(f"  {name} ") and line.endswith(".") for line in lines), name
    for name in MODEL_NAMES:
        assert any(name in line for line in lines), name
    for key in ("epochs = 20", "teacher.image_size = empty", "ckd.temperature = 4.0", "data.source = empty"):
        assert f"  {key}" in lines
    keys = [line for line in lines if line.startswith("  ") and line[2] != " " and " = " in line]
    assert len(keys) == len(KEPT["base"])


def test_the_package_ships_its_configs_and_nothing_beside_them():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    places = ("fairkd_jax", "configs", "scripts", "tests")
    folders = {path.parent.relative_to(ROOT) for place in places for path in (ROOT / place).rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert {"fairkd_jax.configs", "configs"} <= packages
    shipped = {name for name in packages if any(fnmatch.fnmatch(name, p) for p in settings["include"])}
    assert {name.partition(".")[0] for name in shipped} == {"fairkd_jax"}
    assert "fairkd_jax.configs" in shipped
    assert (FOLDER / "__init__.py").is_file()
    assert Path(rkd.__file__).parent == FOLDER
