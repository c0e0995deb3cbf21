"""Runs of earlier versions on a manifest whose names this version would refuse stay usable."""

import pytest

from configs import student
from fairkd_jax.digests import write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.runs.dataset import open_data, parse_recorded_data
from fairkd_jax.runs.folder import check_resumable, read_run_config, to_json_dict


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
