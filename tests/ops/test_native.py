"""The kernels in C++: where they serve, and what happens where they cannot be made."""

import os

import jax
import jax.numpy as jnp
import pytest

from fairkd_jax.ops import depthwise_conv, native

ALL = "['depthwise_forward', 'depthwise_backward', 'batch_norm_forward', 'batch_norm_backward']"


@pytest.fixture(scope="module")
def start(forks):
    """Runs native_program.py in a process with one device; returns what it printed, and its warnings."""

    def start(dtype="float32", **environment):
        ended = forks.run("tests/ops/native_program.py", dtype, **environment)
        ended.check_returncode()
        return ended

    return start


needs_compiler = pytest.mark.skipif(not native.is_available(), reason="no C++ compiler")


@needs_compiler
def test_one_device_is_served_in_float32(start):
    assert start().stdout.strip() == ALL
    assert start("bfloat16").stdout.strip() == "[]"


def test_several_devices_are_not_served(monkeypatch):
    monkeypatch.setattr(native, "is_available", lambda: True)
    assert jax.device_count() > 1
    assert not native.can_serve(jnp.ones(3))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert native.can_serve(jnp.ones(3))
    assert not native.can_serve(jnp.ones(3, jnp.bfloat16))


@pytest.fixture(scope="module")
def quick(tmp_path_factory, start):
    """A compiler that hands out what another one has made, without optimizing."""

    def write(script):
        path = tmp_path_factory.mktemp("compiler") / "c++"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    cache, real = tmp_path_factory.mktemp("cache"), os.environ.get("CXX", "c++")
    assert start(XDG_CACHE_HOME=str(cache), CXX=write(f'exec {real} "$@" -O0')).stdout.strip() == ALL
    (library,) = cache.rglob("*.so")
    return write(f'while [ "$1" != -o ] && [ $# -gt 0 ]; do shift; done\nexec cp "{library}" "$2"')


@needs_compiler
@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:20000] + bytes(9999)]
)
def test_a_damaged_file_is_made_again(damage, start, quick, tmp_path):
    assert start(XDG_CACHE_HOME=str(tmp_path), CXX=quick).stdout.strip() == ALL
    (path,) = tmp_path.rglob("*.so")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = start(XDG_CACHE_HOME=str(tmp_path), CXX=quick)
    assert [file.read_bytes() for file in tmp_path.rglob("*.so")] == [whole]
    assert again.stdout.strip() == ALL
    assert "kernels" not in again.stderr


@needs_compiler
@pytest.mark.parametrize("mode", [0o777, 0o500])
def test_a_folder_of_others_is_not_trusted(mode, start, quick, tmp_path):
    folder = tmp_path / "fairkd_jax" / "native"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert start(XDG_CACHE_HOME=str(tmp_path), CXX=quick).stdout.strip() == ALL
    assert not list(folder.iterdir()) or (os.geteuid() == 0 and mode == 0o500)


def test_what_it_has_no_kernels_for_is_said(monkeypatch):
    x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 5, 1, 2))
    with pytest.raises(ValueError, match=r"has kernels of 3x3 and 5x5, not \(3, 5\)"):
        depthwise_conv(x, kernel, stride=1, padding="SAME", implementation="native")
    monkeypatch.setattr(native, "is_available", lambda: False)
    with pytest.raises(ValueError, match="could not be made here"):
        depthwise_conv(x, kernel[:, :3], stride=1, padding="SAME", implementation="native")


def test_without_a_compiler_it_says_so_and_goes_on(start, tmp_path):
    fresh = {"XDG_CACHE_HOME": str(tmp_path)}
    done = start(CXX="no-such-compiler", **fresh)
    assert done.stdout.strip() == "[]"
    assert "there is no compiler no-such-compiler" in done.stderr
    done = start(CXX="false", **fresh)
    assert done.stdout.strip() == "[]"
    assert "without the kernels in C++" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_it_can_be_turned_off(start):
    done = start(FAIRKD_NATIVE="0")
    assert done.stdout.strip() == "[]"
    assert "kernels" not in done.stderr
