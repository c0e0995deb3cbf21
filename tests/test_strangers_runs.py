"""A run of somebody else: its config does not decide what is read and written here."""

import json
import shutil

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.runs.dataset import open_recorded_data
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.training import write_class_means


@pytest.fixture
def change(kept, tmp_path):
    """Returns a function that copies a run with other keys of the data."""

    def make(**keys):
        folder = shutil.copytree(kept / "rkd_adv" / "teacher", tmp_path / "run")
        content = json.loads((folder / "config.json").read_text())
        content["data"] |= keys
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.mark.parametrize("read", [evaluate_run, write_class_means])
def test_nothing_is_written_where_a_run_says(change, tmp_path, read):
    folder = change(directory=str(tmp_path / "victim"))
    with pytest.raises(UsageError) as refused:
        read(folder)
    told = str(refused.value)
    assert told.startswith(
        f"the digits data are not prepared in {tmp_path / 'victim'}, as {folder}/config.json"
    )
    assert told.endswith(f"`fairkd-eval {folder} --prepare` reads and writes there")
    assert not (tmp_path / "victim").exists()


def test_a_source_is_named(change, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRKD_DATA", str(tmp_path / "data"))
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "20_0_0_1.jpg").write_bytes(b"x")
    folder = change(name="utkface", source=str(tmp_path / "faces"))
    with pytest.raises(
        UsageError, match=f"not prepared in {tmp_path / 'data'} from {tmp_path / 'faces'}, as"
    ):
        evaluate_run(folder)
    assert not (tmp_path / "data").exists()


def test_what_is_allowed_is_prepared_and_then_used(change, tmp_path):
    folder = change(directory=str(tmp_path / "mine"))
    saved = read_run_config(folder)
    open_recorded_data(folder, saved, allow_preparation=True)
    assert open_recorded_data(folder, saved).info.num_examples["test"] == 900


def test_generated_data_in_the_users_own_folder_are_prepared(change, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRKD_DATA", str(tmp_path / "data"))
    folder = change(directory="", source="")
    assert open_recorded_data(folder, read_run_config(folder)).info.num_examples["test"] == 900
