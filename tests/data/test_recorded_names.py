"""Runs of earlier versions on a manifest whose names this version would refuse stay usable."""

import dataclasses

import pytest

from configs import student
from fairkd_jax.digests import write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.sections import parse_data
from fairkd_jax.runs.dataset import describe_data, keep_recorded, open_data, parse_recorded_data
from fairkd_jax.runs.folder import RunConfig, check_resumable, read_run_config, to_json_dict
from fairkd_jax.runs.loading import check_trained_on, load_run


@pytest.fixture
def manifest(write_manifest):
    return write_manifest(
        ["a.png,cat,unknown,train", "b.png,dog,x,train", "c.png,dog,x,test", "d.png,cat,x,val"]
    )


def config_of(manifest, tmp_path, **changes):
    config = student.get_config("manifest")
    config.data.source, config.data.directory = str(manifest), str(tmp_path / "d")
    for key, names in changes.items():
        config.data.manifest[key] = names
    return config


@pytest.fixture
def saved(manifest, tmp_path):
    """What an earlier version wrote: `unknown` was a name there."""
    content = to_json_dict(config_of(manifest, tmp_path))
    del content["data"]["manifest"]["missing"]
    task = {"class_names": ["cat", "dog"], "group_names": ["unknown", "x"], "num_examples": {}, "digests": {}}
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", content | {"version": 1, "task": task})
    return tmp_path / "run"


def test_its_data_are_opened_with_the_names_that_it_recorded(saved):
    dataset = open_data(parse_recorded_data(read_run_config(saved)))
    assert dataset.info.group_names == ("unknown", "x")
    assert dataset.split("train").groups.tolist() == [0, 1]


def test_it_goes_on_with_a_config_that_lists_the_same_names(saved, manifest, tmp_path):
    config = config_of(manifest, tmp_path, group_names=("unknown", "x"))
    check_resumable(saved, to_json_dict(config), {})
    other = config_of(manifest, tmp_path, group_names=("x", "unknown"))
    with pytest.raises(UsageError, match=r"another config: data\.manifest\.group_names"):
        check_resumable(saved, to_json_dict(other), {})


@pytest.fixture
def numbered(write_manifest):
    """A manifest with the classes 9 and 10, which earlier versions sorted as texts."""
    splits = ("train", "val", "test")
    return write_manifest([f"{splits[i % 3]}{i}.png,{10 - i % 2},x,{splits[i % 3]}" for i in range(6)])


def write_earlier_run(folder, config):
    task = {"class_names": ["10", "9"], "group_names": ["x"], "num_examples": {}, "digests": {}}
    folder.mkdir(parents=True)
    write_json(folder / "config.json", to_json_dict(config) | {"version": 1, "task": task})


def test_numbers_are_in_order_and_a_run_of_before_keeps_its_own(numbered, tmp_path):
    config = config_of(numbered, tmp_path)
    data = parse_data(to_json_dict(config)["data"])
    new, old, again = tmp_path / "new", tmp_path / "old", tmp_path / "old" / "teacher"
    write_earlier_run(again, config)
    for folders, names in (([new], ("9", "10")), ([old, again], ("10", "9")), ([], ("9", "10"))):
        dataset = open_data(keep_recorded(data, folders))
        assert dataset.info.class_names == names
        assert dataset.split("train").labels.tolist() == [names.index("10"), names.index("9")]
    listed = dataclasses.replace(data, options={**data.options, "class_names": ("9", "10")})
    assert keep_recorded(listed, [again]).options["class_names"] == ("9", "10")


def test_a_teacher_of_before_with_the_classes_in_another_order_is_refused_with_the_way_out(
    numbered, tmp_path
):
    config = config_of(numbered, tmp_path)
    write_earlier_run(tmp_path / "teacher", config)
    info = {"class_names": ["9", "10"], "dataset": "manifest", "digests": {}}
    with pytest.raises(UsageError, match=r"another order; set data\.manifest\.class_names=10,9 to use it"):
        load_run(tmp_path / "teacher", "best", info, None)


def test_data_are_known_by_content_unless_a_run_or_its_teacher_was_not(saved, manifest, tmp_path):
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes())  # what was allowed then
    manifest.write_text(manifest.read_text() + "e.png,cat,unknown,test\n")
    old = open_data(parse_recorded_data(read_run_config(saved)))
    assert "contents" not in describe_data(old)
    assert old.info.num_examples["test"] == 2
    data = parse_data(to_json_dict(config_of(manifest, tmp_path, group_names=("unknown", "x")))["data"])
    for folders, teacher, by_content in (
        ([], None, True),
        ([tmp_path / "none"], None, True),
        ([saved], None, False),
        ([], saved, False),
    ):
        assert keep_recorded(data, folders, teacher).by_content == by_content
    with pytest.raises(UsageError, match=r"in two splits under other names, such as a\.png"):
        open_data(data)
    new = open_data(dataclasses.replace(data, allow_duplicates=True))
    assert describe_data(new)["digests"] == describe_data(old)["digests"]
    described = describe_data(new)
    run = RunConfig({}, described, {})
    check_trained_on(tmp_path, run, described)
    other = described | {"contents": described["contents"] | {"val": "other"}}
    with pytest.raises(UsageError, match="was trained on other images"):
        check_trained_on(tmp_path, run, other)
    check_trained_on(tmp_path, RunConfig({}, describe_data(old), {}), described)
