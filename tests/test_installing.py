"""What is installed: pinned versions with their hashes, and versions for every Python and platform."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.programs import ROOT, run_program

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_PIN = re.compile(r"^([a-z0-9-]+)==([^\s;\\]+)(?: ; ([^\\]+?))?(?: \\)?$")


def pins_of(text):
    """The name, version and marker of each line that pins something, with the number of its hashes."""
    found = {}
    for line in text.splitlines():
        if match := _PIN.match(line):
            found[last := match.groups()] = 0
        elif re.match(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$", line):
            found[last] += 1
        else:
            assert line.startswith("#"), line
    return found


def test_hashes_are_of_the_same_versions_as_the_constraints():
    constraints, hashes = (pins_of((ROOT / name).read_text()) for name in ("constraints.txt", "hashes.txt"))
    assert len(constraints) > 60
    assert constraints.keys() == hashes.keys()
    assert not any(constraints.values())
    assert all(hashes.values())


def test_what_is_needed_is_pinned_and_has_a_lower_bound():
    pinned = {name for name, _, _ in pins_of((ROOT / "constraints.txt").read_text())}
    extras = PROJECT["optional-dependencies"]
    for extra, requirements in {"core": PROJECT["dependencies"], **extras}.items():
        for requirement in requirements:
            name = re.split(r"[\[<>=; ]", requirement)[0].lower().replace("_", "-")
            if extra not in ("gpu", "tpu", "torch"):
                assert name in pinned, requirement
            # jax of the accelerators has the bound of the core.
            assert ">=" in requirement or requirement in ("jax[cuda13]", "jax[tpu]"), requirement


def test_nothing_needs_tensorflow():
    pinned = {name for name, _, _ in pins_of((ROOT / "constraints.txt").read_text())}
    assert not pinned & {"tensorflow", "tensorflow-cpu", "keras", "tensorboard"}


def test_the_core_resolves_where_it_was_never_run():
    """Needs uv and a package index; without them it is skipped."""
    beside = Path(sys.executable).with_name("uv")
    if not (beside.exists() or shutil.which("uv")):
        pytest.skip("uv is not installed")
    arguments = ("--extra", "core", "--python", "3.14", "--platform", "linux-aarch64", "macos-arm64")
    ended = run_program("scripts/resolve_versions.py", *arguments)
    if re.search("error sending request|Failed to fetch|network was disabled", ended.stdout):
        pytest.skip("no package index")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 3
    for line in lines[:2]:
        assert re.search(r"3\.14 (linux-aarch64|macos-arm64) +\d\d packages, jax 0\.1[2-9]", line)
