"""Trouble of the system: a terminal, a home folder or a disk that does not do what a program wants of it."""

import errno
import io
import json
import logging
import os
import pkgutil
import stat
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fairkd_jax import cli, commands, files, interrupt
from fairkd_jax.data.layout import get_default_directory
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.errors import StorageError, UsageError, writing
from fairkd_jax.files import get_cache_folder, make_private_folder, save_arrays, write_text
from fairkd_jax.run_log import is_worth_reading
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.folder import write_run_config
from fairkd_jax.runs.lock import lock_folder
from tests.limits import files_no_larger_than

FULL = os.strerror(errno.ENOSPC)


def test_a_program_prints_what_a_terminal_cannot_show(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(interrupt, "install", lambda: None)
    says = lambda: [print("class 猫", file=stream, flush=True) for stream in streams]  # noqa: E731
    monkeypatch.setattr(pkgutil, "resolve_name", lambda name: says)
    commands.Command("say", "say:main", "Says it.")()
    assert [stream.buffer.getvalue() for stream in streams] == [b"class \\u732b\n"] * 2


def test_errors_that_follow_from_one_that_was_told_are_not_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "__unraisablehook__", shown.append)
    found = [SimpleNamespace(exc_value=RuntimeError(text)) for text in ("Event loop is closed", "another")]
    for error in found:
        commands.show_unraisable(error)
    assert shown == found[1:]
    record = logging.LogRecord("absl", logging.ERROR, "/lib/orbax/future.py", 1, "thread", (), None)
    assert is_worth_reading(record)
    record.exc_info = (OSError, OSError(FULL), None)
    assert not is_worth_reading(record)


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """There is no home folder; the system's temporary files lie in a folder of the test."""

    def raise_error():
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "FAIRKD_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", raise_error)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files._make_temporary_cache.cache_clear()
    yield tmp_path / f"fairkd_jax-{os.geteuid()}"
    files._make_temporary_cache.cache_clear()


def test_without_a_home_folder_a_private_one_serves_all_programs(homeless):
    assert get_cache_folder() == homeless
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700
    assert get_default_directory() == homeless / "datasets"
    files._make_temporary_cache.cache_clear()  # as in another process
    assert get_cache_folder() == homeless


@pytest.mark.parametrize("trap", ["a link", "open to all", "of somebody else", "a file"])
def test_a_folder_that_others_have_made_among_temporary_files_is_not_used(trap, homeless, monkeypatch):
    if trap == "a link":
        (homeless.parent / "theirs").mkdir()
        homeless.symlink_to("theirs")
    elif trap == "a file":
        homeless.touch()
    else:
        homeless.mkdir()
        homeless.chmod(0o777 if trap == "open to all" else 0o755)
    if trap == "of somebody else":
        owner = os.geteuid()
        homeless.rename(homeless.with_name(f"fairkd_jax-{owner + 1}"))
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    own = get_cache_folder()
    assert own.name.startswith("fairkd_jax-")
    assert own.name not in {f"fairkd_jax-{os.geteuid()}", homeless.name}
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert get_cache_folder() == own


@pytest.mark.parametrize(("mode", "used"), [(0o755, True), (0o775, True), (0o777, False)])
def test_compiled_programs_are_kept_where_nobody_else_can_write(mode, used, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "fairkd_jax" / "jax"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    name = "jax_compilation_cache_dir"
    before = jax.config.values[name]
    jax.config.update(name, None)
    try:
        cli.use_compilation_cache()
        assert jax.config.values[name] == (str(folder) if used else None)
    finally:
        jax.config.update(name, before)
    if used:  # the group has lost the permission
        assert not folder.stat().st_mode & 0o022
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not make_private_folder(folder)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            OSError(errno.ENOSPC, FULL, "/a/.b.tmp"),
            StorageError,
            "cannot do it: No space left on device;",
        ),
        (RuntimeError(f"write() failed: {FULL}; writing /a\nFailed"), StorageError, f"it: {FULL}; wait"),
        (ValueError("Error: Permission denied [os_error_code='13']"), StorageError, "it: Permission denied;"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a"), UsageError, "it: Not a directory; wait"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/a"), UsageError, "it: File name too long; wait"),
        (UsageError("another"), UsageError, "another"),
        (ValueError("a fault of the program"), ValueError, "a fault of the program"),
    ],
)
def test_errors_of_the_system_are_one_line(error, kind, told):
    with pytest.raises(kind) as found, writing("do it", "wait"):
        raise error
    assert type(found.value) is kind
    assert told in str(found.value)
    assert "\n" not in str(found.value)


def test_a_full_disk_while_a_checkpoint_is_saved(tmp_path):
    tree = {"w": np.random.default_rng(0).random(40_000)}
    checkpoints = Checkpoints(tmp_path, training=True)
    with (
        files_no_larger_than(100_000),
        pytest.raises(StorageError, match=r"cannot save the checkpoint .*/last/1: File too large; make room"),
    ):
        checkpoints.save_last(1, tree, tree, {})
    again = Checkpoints(tmp_path, training=True)
    assert again.last_step() is None
    again.save_last(1, tree, tree, {})
    assert Checkpoints(tmp_path).last_step() == 1


def test_a_full_disk_while_data_are_written(tmp_path):
    with (
        files_no_larger_than(60_000),
        pytest.raises(StorageError, match=r"cannot prepare digits in .*: File too large; choose another"),
    ):
        open_dataset("digits", directory=tmp_path, size=8)
    assert not (tmp_path / "digits").exists()
    assert not list(tmp_path.glob(".staging/write-*"))


def test_the_folder_of_a_run_on_a_full_disk(tmp_path, monkeypatch):
    with (
        pytest.raises(StorageError, match=rf"cannot write to {tmp_path}/run/a: {FULL}; make room"),
        lock_folder(tmp_path / "run"),
    ):
        raise OSError(errno.ENOSPC, FULL, str(tmp_path / "run" / "a"))
    assert not (tmp_path / "run").exists()
    with files_no_larger_than(10), pytest.raises(StorageError, match=r"cannot write to .*: File too large"):
        write_run_config(tmp_path, {}, {}, {})
    assert not any(tmp_path.iterdir())


def test_the_file_is_named_although_nothing_can_be_removed(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("unlink", "write_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(np, "savez_compressed", refuse)
    for write, content in ((write_text, ""), (save_arrays, {})):
        with pytest.raises(OSError, match="Read-only") as found:
            write(tmp_path / "file", content)
        assert found.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("arguments", [["eval", "."], ["train", "--config=student", "--workdir=."]])
def test_a_finished_run_that_is_read_only_shows_its_table_first(arguments, forks, kept, tmp_path):
    name, *others = arguments
    scores = kept / "rkd_adv" / "baseline" / "eval" / "test.json"
    shown = forks.run("tests/unwritable_program.py", name, scores, *others, cwd=tmp_path)
    assert shown.returncode == 1
    accuracy = json.loads(scores.read_text())["student"]["accuracy"]
    assert f"{accuracy:.4f}"[:5] in shown.stdout
    assert shown.stderr == f"fairkd-{name}: nothing was written: .: Read-only file system\n"


def test_programs_that_only_read_tables_name_the_file(capsys):
    def work():
        yield "a"
        raise OSError(errno.ENOSPC, FULL, "b")

    assert cli.print_lines("fairkd-x", work()) == 1
    assert capsys.readouterr().err == f"fairkd-x: b: {FULL}\n"
