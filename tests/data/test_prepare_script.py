"""fairkd-prepare: its table, its exit codes, two processes at once."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from fairkd_jax import digests
from fairkd_jax.programs import prepare_data
from tests.programs import command, environment

INCOMPLETE = 2  # the exit code where the data are prepared, but a split that a run needs has no images


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setattr("sys.argv", ["fairkd-prepare"])
    return prepare_data.main


def test_table_and_skipped_names(main, faces, tmp_path, capsys):
    folder = faces()
    (folder / "nameless.jpg").write_bytes(b"")
    arguments = ["utkface", "--source", str(folder), "--directory", str(tmp_path / "d"), "--size", "16"]
    assert main([*arguments, "--max_bad_fraction", "0.1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(printed) if line.startswith("train: "))
    assert printed[start + 1].split() == ["class", "male", "female", "unknown", "total"]
    cells = [line.split() for line in printed[start + 3 : start + 6]]
    assert [line[0] for line in cells] == ["0-19", "20-39", "40+"]
    assert sum(int(line[-1]) for line in cells) == int(printed[start].split()[1])
    assert printed[-2:] == [
        "skipped: 1",
        "  nameless.jpg: the name is not of the form age_gender_race_time.jpg",
    ]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fairkd-prepare: 1 of 41 files are bad")
    assert captured.err.count("\n") == 1


def test_counts_and_datasheet(main, write_manifest, tmp_path, capsys):
    manifest = write_manifest(["a.png,cat,,train", "b.png,dog,x,train", "c.png,dog,x,test"])
    assert main(["manifest", "--source", str(manifest), "--directory", str(tmp_path / "d")]) == INCOMPLETE
    folder = Path(capsys.readouterr().out.splitlines()[0].rpartition(": ")[2])
    described = json.loads((folder / "counts.json").read_text())
    assert described["splits"]["train"]["counts"] == [[0, 1]]
    assert described["splits"]["train"]["unknown"] == [1, 0]
    assert described["options"] == {"class_names": [], "group_names": [], "missing": []}
    sheet = (folder / "datasheet.md").read_text()
    assert f"`{manifest}`" in sheet
    assert "| cat | 0 | 1 | 1 |" in sheet
    assert f"`{described['splits']['test']['digest']}`" in sheet


def test_data_of_others_and_damaged_data(main, write_manifest, tmp_path, capsys, monkeypatch):
    manifest = write_manifest(["a.png,cat,,train", "b.png,dog,x,train"])
    arguments = ["manifest", "--source", str(manifest), "--directory", str(tmp_path / "d")]
    assert main(arguments) == INCOMPLETE
    assert "there are no images in val and test" in capsys.readouterr().err

    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(prepare_data, "write_text", refuse)
    assert main(arguments) == INCOMPLETE
    assert "without datasheet.md and counts.json (Permission denied)" in capsys.readouterr().out
    (records,) = (tmp_path / "d").rglob("*array_record*")
    records.write_bytes(records.read_bytes()[:-200])
    assert main(arguments) == 2
    assert "the data are damaged: delete that folder" in capsys.readouterr().err


def test_manifest_options(main, write_manifest, tmp_path, capsys):
    manifest = write_manifest(["a.png,cat,,train", "b.png,dog,x,train"])
    arguments = ["manifest", "--source", str(manifest), "--directory", str(tmp_path / "d")]
    assert main([*arguments, "--class_names", "dog", "cat"]) == INCOMPLETE
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[5:7]] == [["dog", "1", "0", "1"], ["cat", "0", "1", "1"]]


@pytest.mark.parametrize("arguments", [["mnist"], ["digits", "--target", "race"], ["digits", "--size", "0"]])
def test_errors_are_one_line(main, arguments, tmp_path, capsys):
    assert main([*arguments, "--directory", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_at_once(faces, tmp_path):
    line = command("scripts/prepare_data.py", "utkface", "--source", faces(), "--directory", tmp_path / "d")
    piped = {"env": environment(), "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(line, **piped) for _ in range(2)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0] == outputs[1]
    assert not list((tmp_path / "d/.staging").iterdir())


def test_any_changed_byte_of_prepared_data_is_named_and_verify_reads_all(
    main, write_manifest, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    manifest = write_manifest(["a.png,cat,,train", "b.png,dog,x,train", "c.png,dog,x,test"])
    arguments = ["manifest", "--source", str(manifest), "--directory", str(tmp_path / "d")]
    assert main(arguments) == INCOMPLETE
    folder = Path(capsys.readouterr().out.splitlines()[0].rpartition(": ")[2])
    files = (folder / "SHA256SUMS").read_text().splitlines()
    assert main([*arguments, "--verify"]) == INCOMPLETE
    assert f"verified: {len(files)} files" in capsys.readouterr().out
    assert len(files) > 6
    for line in files:
        path = folder / line.partition("  ")[2]
        whole, state = path.read_bytes(), path.stat()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        path.write_bytes(damaged)
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"fairkd-prepare: {path} ")
        assert "the data are damaged: delete that folder" in told
        # Of the same size and time as before, as a fault of the disk leaves it.
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert main([*arguments, "--verify"]) == 2
        assert "the data are damaged" in capsys.readouterr().err
        path.write_bytes(whole)
    assert main(arguments) == INCOMPLETE
    (folder / "SHA256SUMS").unlink()  # of an earlier version
    assert main(arguments) == INCOMPLETE


def test_a_start_on_prepared_data_reads_no_file_again(main, write_manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    manifest = write_manifest(["a.png,cat,,train", "b.png,dog,x,train"])
    arguments = ["manifest", "--source", str(manifest), "--directory", str(tmp_path / "d")]
    assert main(arguments) == INCOMPLETE
    hashed = []
    real = digests.hash_file
    monkeypatch.setattr(digests, "hash_file", lambda path: hashed.append(path) or real(path))
    assert main(arguments) == INCOMPLETE
    assert hashed == []
    (moved,) = (tmp_path / "d").rglob("table_train.npz")
    os.utime(moved)
    assert main(arguments) == INCOMPLETE
    assert hashed == [moved]
    assert main(arguments) == INCOMPLETE
    assert hashed == [moved]
