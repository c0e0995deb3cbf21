"""Settings that every test shares: eight simulated devices, strict numerics, one compilation cache."""

import fcntl
import os
import shutil
import tarfile
from pathlib import Path

import jax
import pytest

from fairkd_jax import digests
from fairkd_jax.data import file_hashes
from fairkd_jax.data.pipeline import open_dataset
from tests.programs import CACHE, QUICK, Forks

# Eight simulated devices wait for one another in every reduction. XLA takes as many threads as there are
# cores, unless this variable names another number; on few cores the devices would wait for ever.
os.environ.setdefault("NPROC", "24")
os.environ.setdefault("XLA_FLAGS", QUICK)


def pytest_configure(config):
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # Nearly all time goes into compiling programs that run for some steps only.
    jax.config.update("jax_disable_most_optimizations", True)
    # Many tests compile the same small programs: what one of them compiled serves the other workers, the
    # programs that tests start, other clones, and the next run.
    for name, value in CACHE.items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Gives back the memory of what a file has compiled; the folder of the cache has it still."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="session")
def keep_records_apart(tmp_path_factory):
    """What is remembered of files that tests write does not stay in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for module in (digests, file_hashes):
            patch.setattr(module, "get_cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def optimized():
    """A file's programs are compiled as a user's are."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory, request):
    """Returns a function (name, make) -> a folder that `make(folder)` fills, in one worker for all."""
    root = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        root = root.parent
    shared = root / "shared"
    shared.mkdir(exist_ok=True)

    def once(name, make):
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def forks():
    """Runs programs that end soon; see `Forks`."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def data_directory(make_once):
    """The folder of prepared data sets, with the digits at 16 pixels in it."""
    return str(make_once("data", lambda folder: open_dataset("digits", directory=folder, size=16)))


@pytest.fixture(scope="session")
def kept(make_once):
    """The folders of the runs that earlier versions left; they are only read."""

    def unpack(folder):
        with tarfile.open(Path(__file__).parent / "kept" / "runs.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        for path in folder.rglob("config.json"):  # where their teachers are
            path.write_text(path.read_text().replace("KEPT", str(folder)))

    return make_once("kept", unpack)
