"""What killed programs leave behind: the next program removes it, and leaves alone what is in use."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.files import save_arrays, write_text
from fairkd_jax.leftovers import make_mark, remove_abandoned
from fairkd_jax.ops import native
from tests.programs import ROOT

MACHINE, _, RANDOM = make_mark().split("-")


@pytest.fixture(scope="module")
def marks():
    """Marks of temporary names: whether the process is gone, and the mark."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    with subprocess.Popen(["sleep", "600"]) as other:
        yield {
            "gone": f"{MACHINE}-{gone.pid}-{RANDOM}",
            "own": make_mark(),
            "other": f"{MACHINE}-{other.pid}-{RANDOM}",
            "elsewhere": f"{'0' * 8}-{gone.pid}-{RANDOM}",
            "earlier": RANDOM,
        }
        other.kill()


@pytest.mark.parametrize("is_old", [False, True])
def test_only_what_belongs_to_nobody_is_removed(marks, is_old, tmp_path):
    paths = {kind: tmp_path / f"write-{mark}" for kind, mark in marks.items()}
    for path in paths.values():
        (path / "inside").mkdir(parents=True)
        if is_old:
            os.utime(path, (0, 0))
    remove_abandoned(tmp_path.glob("write-*"))
    left = {kind for kind, path in paths.items() if path.exists()}
    assert left == {"own", "other"} | (set() if is_old else {"elsewhere", "earlier"})


@pytest.mark.parametrize(
    ("write", "content", "suffix"), [(write_text, "a", ".tmp"), (save_arrays, {}, ".tmp.npz")]
)
def test_a_file_that_is_written_again_takes_its_leftovers_away(write, content, suffix, marks, tmp_path):
    for name in ("test.npz", "val.npz"):
        for mark in marks.values():
            (tmp_path / f".{name}.{mark}{suffix}").touch()
    (tmp_path / ".test.npz.mine").touch()
    write(tmp_path / "test.npz", content)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2 * len(marks) + 2 - 1
    assert f".test.npz.{marks['gone']}{suffix}" not in left


def test_a_preparation_leaves_nothing_and_removes_leftovers(marks, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for kind in ("gone", "other"):
        (tmp_path / "data" / ".staging" / f"write-{marks[kind]}").mkdir(parents=True)
    dataset = open_dataset("digits", directory=tmp_path / "data", size=8, cache="none")
    assert [path.name for path in (tmp_path / "data" / ".staging").iterdir()] == [f"write-{marks['other']}"]
    assert not list((tmp_path / "temporary").iterdir())
    before = dataset.split("test").read_images(np.arange(3))
    description = Path(dataset.info.directory) / "dataset_info.json"
    description.unlink()  # the data are prepared again
    dataset = open_dataset("digits", directory=tmp_path / "data", size=8, cache="none")
    assert Path(dataset.info.directory) == description.parent
    assert description.exists()
    np.testing.assert_array_equal(dataset.split("test").read_images(np.arange(3)), before)


@pytest.fixture
def compiler(tmp_path):
    """A compiler that says who it is, and starts a child as a real one does."""
    path = tmp_path / "c++"
    path.write_text(f'#!/bin/sh\nsleep 600 &\necho $$ $! > "{tmp_path}/pids"\nwait\n')
    path.chmod(0o755)
    return path


def is_alive(number):
    """Whether a process is there and not only waits for its parent."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_start_leaves_no_compiler(number, compiler, tmp_path):
    code = f"from fairkd_jax.ops import native; native._run_compiler([{str(compiler)!r}], {str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True) as process:
        pids, deadline = tmp_path / "pids", time.monotonic() + 60
        while not (pids.exists() and pids.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.05)
        running = [int(word) for word in pids.read_text().split()]
        assert all(map(is_alive, running))
        process.send_signal(number)
    deadline = time.monotonic() + 10
    while any(map(is_alive, running)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, running))


def test_what_the_compiler_says_is_told(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as found:
        native._run_compiler(["sh", "-c", "echo wrong flag >&2; exit 3"], str(tmp_path))
    assert (found.value.returncode, found.value.stderr) == (3, "wrong flag\n")
    native._run_compiler(["sh", "-c", "touch $TMPDIR/made"], str(tmp_path))
    assert (tmp_path / "made").exists()
