"""One process trains in a folder at a time, whatever becomes of the folder."""

import contextlib
import os
import threading

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.runs.lock import lock_folder

REFUSED = "another process is training in"


def refuse(folder):
    with pytest.raises(UsageError, match=REFUSED), lock_folder(folder):
        pass


def test_a_refused_process_leaves_the_lock_to_its_holder(tmp_path):
    folder = tmp_path / "a" / "run"
    with lock_folder(folder):
        for _ in range(3):  # the folder is empty all the time
            refuse(folder)
            assert folder.is_dir()
    assert not folder.exists()
    with lock_folder(folder):
        (folder / "config.json").write_text("{}")
    assert folder.is_dir()


def test_a_folder_that_is_removed_between_opening_and_locking_is_made_again(tmp_path, monkeypatch):
    folder, opened = tmp_path / "run", []
    real = os.open

    def open_and_lose(path, *args, **options):
        descriptor = real(path, *args, **options)
        if path == folder and len(opened) < 2:
            opened.append(descriptor)
            folder.rmdir()  # as its last holder does
        return descriptor

    monkeypatch.setattr("fairkd_jax.runs.lock.os.open", open_and_lose)
    with lock_folder(folder):
        assert len(opened) == 2
        assert folder.is_dir()
        refuse(folder)


def test_of_many_that_start_at_once_one_trains(tmp_path):
    folder, inside, most = tmp_path / "run", [], []
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(50):
            with contextlib.suppress(UsageError), lock_folder(folder):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert not folder.exists()
