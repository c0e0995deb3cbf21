"""Bytes that have changed since they were written are found, and named, before they are used."""

import json
import subprocess

import numpy as np
import pytest

from fairkd_jax.digests import (
    SUMS,
    check_sums,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
    write_sums,
)
from fairkd_jax.errors import UsageError
from fairkd_jax.files import save_arrays

ADVICE = "make it again"
ARRAYS = {"id": np.array(["a", "bc"]), "label": np.arange(3), "score": np.ones((2, 2), np.float32)}


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_any_flipped_bit_of_a_file_of_arrays_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    whole, lines = path.read_bytes(), set()
    for position in range(len(whole)):
        path.write_bytes(whole)
        flip(path, position)
        try:
            found = read_arrays(path, ADVICE)
        except UsageError as error:
            lines.add(str(error))
            continue
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
    assert len(lines) > 5
    assert all(line.startswith(f"{path} cannot be read") and line.endswith(ADVICE) for line in lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": np.arange(1, 4)},
        {"label": np.arange(3.0)},
        {"more": np.zeros(1)},
        {"score": np.ones((4, 1), np.float32)},
    ],
)
def test_other_arrays_with_the_same_hash_are_refused(tmp_path, changes):
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    with np.load(path) as stored:
        save_arrays(path, dict(stored) | changes)
    with pytest.raises(UsageError, match="have changed since they were written"):
        read_arrays(path, ADVICE)


def test_arrays_without_a_hash_are_read_and_one_line_says_so(tmp_path, caplog):
    save_arrays(tmp_path / "arrays.npz", ARRAYS)
    with caplog.at_level("INFO"):
        assert read_arrays(tmp_path / "arrays.npz", ADVICE).keys() == ARRAYS.keys()
    assert caplog.messages == [f"{tmp_path / 'arrays.npz'}: not checked, since it was written without a hash"]


VALUES = {"version": 1, "seed": 3, "name": "ä", "nested": {"rate": 0.1, "list": [1, None, True]}}


def test_any_flipped_bit_of_a_json_file_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, VALUES)
    assert read_json(path) == VALUES
    whole, found = path.read_bytes(), 0
    for position in range(len(whole)):
        path.write_bytes(whole)
        flip(path, position)
        try:
            content = read_json(path)
        except ValueError:
            found += 1
            continue
        assert {key: content[key] for key in VALUES} == VALUES  # the name of the hash was hit, or a blank
    assert found > len(whole) / 2


def test_a_json_file_may_be_laid_out_anew_but_not_changed(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, VALUES)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(stored.items()))))
    assert read_json(path) == VALUES
    path.write_text(json.dumps(stored | {"seed": 4}))
    with pytest.raises(ValueError, match="changed since it was written; to keep a change of yours"):
        read_json(path)
    del stored["sha256"]
    path.write_text(json.dumps(stored | {"seed": 4}))
    assert read_json(path) == VALUES | {"seed": 4}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "step"
    (folder / "state" / "d").mkdir(parents=True)
    for name in ("state/d/0", "state/manifest", "metadata"):
        (folder / name).write_bytes(name.encode() * 100)
    write_sums(folder)
    return folder


def test_a_whole_folder_passes_and_sha256sum_agrees(folder):
    check_sums(folder, ADVICE)
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=folder, check=True)
    write_sums(folder)  # its own hashes are none of its files
    check_sums(folder, ADVICE)


@pytest.mark.parametrize("name", ["state/d/0", "state/manifest", "metadata"])
def test_a_flipped_bit_is_found_and_the_file_named(folder, name):
    flip(folder / name, 7)
    with pytest.raises(UsageError) as refused:
        check_sums(folder, ADVICE)
    assert str(refused.value) == f"{folder / name} has changed since it was written; {ADVICE}"


def test_missing_and_added_files_and_damaged_sums_are_found(folder):
    (folder / "metadata").rename(folder / "other")
    with pytest.raises(UsageError, match=r"metadata is missing"):
        check_sums(folder, ADVICE)
    write_sums(folder)
    (folder / "state" / ".DS_Store").touch()  # nobody reads it
    check_sums(folder, ADVICE)
    flip(folder / "state" / "manifest", 7)
    check_sums(folder, ADVICE, below="other")
    with pytest.raises(UsageError, match="manifest has changed"):
        check_sums(folder, ADVICE, below="state")
    flip(folder / "state" / "manifest", 7)
    for position in range(len((folder / SUMS).read_bytes())):
        write_sums(folder)
        flip(folder / SUMS, position)
        with pytest.raises(UsageError):
            check_sums(folder, ADVICE)


def test_a_folder_without_hashes_is_read_and_one_line_says_so(folder, caplog):
    (folder / SUMS).unlink()
    with caplog.at_level("INFO"):
        check_sums(folder, ADVICE)
    assert caplog.messages == [f"{folder}: not checked, since it was written without a hash"]
