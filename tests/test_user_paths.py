"""Paths that a user gives: `~` is expanded, and what could not be read again is refused before a training."""

import os
import unicodedata
from pathlib import Path

import jax
import numpy as np
import pytest

from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.engine.sharding import make_abstract_arrays, make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.files import get_cache_folder
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.user_paths import check_can_store, parse_path
from tests.programs import ROOT

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
USABLE = [
    *(
        " ]{a,b}'\"`<(!^)> ",
        "$HOME %s%20#&;|=,@",
        f"{COMPOSED}{DECOMPOSED}\N{GRINNING FACE}",
        ".hidden.",
        "-1",
    ),
    *(".hidden.", "-1", "gs:x", "c:", "~", "n" * 255, "a.orbax-checkpoint-tmp"),
]
PATTERNS = ["[a]", "a[b]c", "[!a]", "*", "a*b", "?", "back\\slash", "end\\", "gs:/x", "s3:/x"]
NOT_ONE_LINE = ["a\nb", "a\rb", "a\tb", "a\x1b[31mb", "a\x7fb", "a\x85b", "a\u2028b", "a\0b", "a\udcffb"]


def save_and_read(folder):
    """Saves checkpoints as a training does, and reads them as another program does."""
    tree = {"params": {"w": np.arange(4.0, dtype=np.float32)}}
    for step in (1, 2):
        writer = Checkpoints(folder, training=True)
        writer.save_last(step, tree, tree, {})
        writer.save_best(step, tree, {"accuracy": step})
        writer.close()
    reader = Checkpoints(folder)
    target = make_abstract_arrays(make_mesh(jax.devices()[:1]), tree)
    step, student = reader.restore_student("best", target)
    assert (step, reader.last_step(), reader.best_scores()) == (2, 2, {"accuracy": 2})
    np.testing.assert_array_equal(student["params"]["w"], tree["params"]["w"])
    reader.close()


@pytest.mark.parametrize("name", USABLE)
def test_a_run_in_a_folder_of_any_usual_name_can_be_read_again(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_can_store(Path(name))
    save_and_read(Path(name))


def test_a_run_behind_a_link_can_be_read_again(tmp_path):
    (tmp_path / "[a]").mkdir()
    (tmp_path / "link").symlink_to("[a]")
    save_and_read(tmp_path / "link")


@pytest.mark.parametrize("name", [*PATTERNS, *NOT_ONE_LINE, "n/" * 2000])
def test_a_folder_that_could_not_be_read_again_is_refused(name, tmp_path, monkeypatch):
    with pytest.raises(UsageError) as refused:
        Checkpoints(tmp_path / name / "run")
    assert str(refused.value).isprintable()
    assert not any(tmp_path.iterdir())
    if name == "[a]":  # a relative path is below such a folder, too
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with pytest.raises(UsageError, match=r"because of \[ in its name; choose another folder"):
            check_can_store(Path("run"))


def test_a_path_that_would_be_taken_for_a_bucket_is_refused():
    with pytest.raises(UsageError, match="/gs/ in front"):
        check_can_store(Path("/gs/bucket/run"))
    for address in ("gs://bucket/run", "s3://bucket/run", "file:///tmp/run"):
        with pytest.raises(UsageError, match="is an address"):
            parse_path(address)


@pytest.mark.parametrize("name", NOT_ONE_LINE)
def test_a_path_that_is_not_one_line_is_refused(name):
    with pytest.raises(UsageError) as refused:
        parse_path(name)
    assert str(refused.value).isprintable()


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert parse_path("~/a/../b") == tmp_path / "a/../b"
    assert parse_path("a~") == Path("a~")
    assert parse_path(str(parse_path("./~a"))) == tmp_path / "~a"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/kept")
    assert get_cache_folder() == tmp_path / "kept" / "fairkd_jax"
    with pytest.raises(UsageError, match="~nobody-here/a: the home folder of this user is not known"):
        parse_path("~nobody-here/a")


@pytest.mark.parametrize("name", ["[a*]?", "back\\slash", "gs:/x", "\N{GRINNING FACE} %s'", ".dot."])
def test_data_may_lie_in_a_folder_of_any_name(name, tmp_path, data_directory):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "digits").symlink_to(Path(data_directory) / "digits")
    split = open_dataset("digits", directory=folder, size=16, cache="none").split("test")
    assert split.read_images(np.array([0])).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train.py", ["--config=student", "--workdir=w/[a]"], "checkpoints cannot be kept in"),
        (
            "train.py",
            ["--config=student", "--workdir=a\x1b[31m\nb"],
            "'a\\x1b[31m\\nb' has control characters",
        ),
        ("train.py", ["--config=student", "--config.data.directory=a\nb"], "has control characters"),
        ("train.py", ["--config=student:utkface", "--config.data.source=a\x1bb"], "has control characters"),
        ("train.py", ["--config=~nobody-here/a.py"], "the home folder of this user is not known"),
        ("scripts/sweep.py", ["--config=student", "--grid=seed=0", "--workdir=w/[a]"], "cannot be kept in"),
        ("scripts/prepare_data.py", ["digits", "--directory=gs://bucket"], "is an address"),
        ("scripts/prepare_data.py", ["a\x1b\nb"], "unknown data set 'a\\x1b\\nb'"),
        ("scripts/report.py", ["a\x1bb\nc"], "argument RUN: 'a\\x1bb\\nc' has control characters"),
        ("scripts/compare_runs.py", ["~nobody-here/a", "b"], "the home folder of this user is not known"),
    ],
)
def test_programs_refuse_a_path_in_one_line(forks, tmp_path, program, arguments, message):
    refused = forks.run(program, *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.split("\n")[:-1]
    assert message in line
    assert line.isprintable()
    assert not any(tmp_path.iterdir())


def test_programs_expand_the_home_folder(forks, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "own.py").write_text((ROOT / "fairkd_jax" / "configs" / "student.py").read_text())
    refused = forks.run("eval.py", "--workdir=~/run", cwd=tmp_path, HOME=str(home))
    assert f"{home}/run holds no run" in refused.stderr
    refused = forks.run("train.py", "--config=~/own.py", "--config.epochs=0", cwd=tmp_path, HOME=str(home))
    assert "epochs=0 must be at least 1" in refused.stderr
    assert os.listdir(tmp_path) == ["home"]
