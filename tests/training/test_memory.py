"""A step that does not fit the memory is refused before it begins; one that just fits is given all of it."""

import platform

import jax
import pytest

from fairkd_jax import host_memory
from fairkd_jax.errors import UsageError
from fairkd_jax.training import memory as checked_memory
from fairkd_jax.training import train
from fairkd_jax.training.memory import check_memory, plan_free_memory
from tests.programs import run_program

GIB = 2.0**30
ONE = jax.devices()[:1]


def test_a_population_that_does_not_fit_names_the_number_that_does():
    check_memory(8, 1, peak=9 * GIB, placed=1 * GIB, free=8 * GIB)
    check_memory(8, 1, peak=9 * GIB, placed=1 * GIB, free=0)  # not known
    with pytest.raises(UsageError, match=r"takes 9.00 GiB, and may take 5.00; .*wave_size=4 "):
        check_memory(8, 1, peak=9 * GIB, placed=1 * GIB, free=4 * GIB)
    # Fewer than share the devices out evenly would take more of each.
    with pytest.raises(UsageError, match=r"step of 16 members .*wave_size=8 "):
        check_memory(2, 8, peak=9 * GIB, placed=1 * GIB, free=7.5 * GIB)
    with pytest.raises(UsageError, match="not even one would fit"):
        check_memory(8, 1, peak=9 * GIB, placed=1 * GIB, free=0.5 * GIB)


def test_a_lone_student_is_not_told_of_waves():
    with pytest.raises(UsageError, match=r"a step takes 9.00 GiB, and may take 5.00; a smaller batch_size"):
        check_memory(0, 1, peak=9 * GIB, placed=1 * GIB, free=4 * GIB)


@pytest.fixture
def memory(monkeypatch):
    """Sets how much memory is free; returns what the C library was asked for."""
    asked = []

    def free(size):
        monkeypatch.setattr(checked_memory, "read_available_bytes", lambda: size)
        monkeypatch.setattr(host_memory, "return_free_memory", lambda: asked.append(size))
        return asked

    return free


def test_memory_is_kept_where_there_is_plenty(memory):
    devices = 2
    asked = memory(100 * devices * GIB)
    plenty = plan_free_memory(1 * GIB, 0, devices)
    assert not asked
    assert 80 * GIB < plenty < 100 * GIB
    assert plan_free_memory(1 * GIB, 10 * devices * GIB, devices) == pytest.approx(plenty - 10 * GIB)
    assert not asked
    assert plan_free_memory(30 * GIB, 0, devices) == plenty
    assert len(asked) == 1
    assert 0 < plan_free_memory(1 * GIB, 200 * devices * GIB, devices) < 1 * GIB
    assert len(asked) == 2
    asked = memory(0)
    assert plan_free_memory(1 * GIB, 0, devices) == 0  # not known


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_what_does_not_fit_leaves_nothing_behind(seeds, memory, make_config, tmp_path):
    """So that the same folder takes a smaller batch."""
    config = make_config()
    config.population.seeds = seeds
    memory(2**20)
    with pytest.raises(UsageError, match=r"a step .*takes .* GiB, and may take 0.00.*a smaller batch_size"):
        train(config, tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run").exists()


RETURNED = """
import numpy as np
from fairkd_jax.host_memory import return_free_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def freed():
    before = resident()
    large, small = np.ones(2**27, np.uint8), np.ones(2**12, np.uint8)  # the small one lies above
    del large
    return resident() - before

kept = freed()
return_free_memory()
after = resident()
print(kept, freed(), resident() - after)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
def test_the_c_library_gives_memory_back_when_asked():
    printed = run_program("-c", RETURNED, **{host_memory.VARIABLE: host_memory.SETTING}).stdout
    kept, returned, grown = map(float, printed.split())
    assert kept > 100
    assert returned < 20
    assert grown < 20
