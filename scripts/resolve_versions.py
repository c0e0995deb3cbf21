"""Resolves the project's dependencies for each Python, platform and extra, without installing anything.

    python scripts/resolve_versions.py [--extra NAME ...] [--python 3.14 ...] [--platform NAME ...]
    python scripts/resolve_versions.py --pin

Each extra is resolved alone with the core and constraints.txt, and from wheels only. --pin resolves the
newest versions, and writes constraints.txt (names and versions) and hashes.txt (the same with the hashes of
all files). All tests must pass with them before they are committed. The program needs uv,
which the extra `dev` installs, and a package index.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "linux-x86_64": "x86_64-manylinux_2_31",
    "linux-aarch64": "aarch64-manylinux_2_31",
    "macos-arm64": "aarch64-apple-darwin",
}
CORE = "core"
BACKSLASH = " \\"  # at the end of a line that goes on
# What has no wheel anywhere, and is built from source in a second: its wheel is pure Python.
WITHOUT_WHEELS = ("promise",)
# Extras that a platform cannot have.
IMPOSSIBLE = {
    ("gpu", "macos-arm64"): "CUDA is not there on macOS",
    ("tpu", "macos-arm64"): "libtpu is for Linux on x86-64",
    ("tpu", "linux-aarch64"): "libtpu is for Linux on x86-64",
}
# Extras whose libraries lie outside constraints.txt: they are large, and belong to an accelerator or a peer.
UNPINNED = ("gpu", "tpu", "torch")
_NAME = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)")


def compile_versions(*options: str) -> subprocess.CompletedProcess[str]:
    """Runs `uv pip compile` on pyproject.toml, without the text that changes from run to run."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else "uv"
    command = [uv, "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate", *options]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("resolve_versions.py: uv is not installed; install the extra `dev`")


def list_extras() -> list[str]:
    """Returns the names of all extras."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def resolve(extra: str, python: str, platform: str) -> tuple[str, dict[str, str]]:
    """Resolves the core with one extra.

    Args:
      extra: Name of the extra, or `core`.
      python: Version of Python.
      platform: Key of `PLATFORMS`.

    Returns:
      The reason of a failure, "" for success; and the versions by name.
    """
    options = ["--constraint", "constraints.txt", "--python-version", python]
    options += ["--python-platform", PLATFORMS[platform], "--only-binary", ":all:"]
    options += [word for name in WITHOUT_WHEELS for word in ("--no-binary", name)]
    options += [] if extra == CORE else ["--extra", extra]
    done = compile_versions(*options)
    if done.returncode:
        return " ".join(done.stderr.split()), {}
    found = map(_NAME.match, done.stdout.splitlines())
    return "", {match[1].lower(): match[2] for match in found if match}


def pin() -> None:
    """Writes constraints.txt and hashes.txt."""
    options = ["--universal", "--python-version", PYTHONS[0]]
    options += [word for extra in list_extras() if extra not in UNPINNED for word in ("--extra", extra)]
    title = "# Versions of all that is installed, as tested; written by scripts/resolve_versions.py --pin.\n"
    done = compile_versions(*options, "--generate-hashes")
    if done.returncode:
        sys.exit(f"resolve_versions.py: {' '.join(done.stderr.split())}")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    versions = "".join(f"{line.removesuffix(BACKSLASH)}\n" for line in lines)
    for name, text in (("constraints.txt", versions), ("hashes.txt", done.stdout)):
        path = ROOT / name
        temporary = path.with_suffix(".tmp")
        temporary.write_text(title + text, encoding="utf-8")
        temporary.replace(path)
        print(f"{name}: {len(text.splitlines())} lines")


def main() -> int:
    """Resolves all combinations and prints a line for each.

    Returns:
      The exit code: 1 where one fails that should not.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    extras = [CORE, *list_extras()]
    parser.add_argument("--extra", nargs="+", choices=extras, default=extras, help="Extras to resolve.")
    parser.add_argument("--python", nargs="+", choices=PYTHONS, default=PYTHONS, help="Versions of Python.")
    parser.add_argument(
        "--platform", nargs="+", choices=PLATFORMS, default=PLATFORMS, help="Names of the platforms."
    )
    parser.add_argument("--pin", action="store_true", help="Whether to write constraints.txt and hashes.txt.")
    options = parser.parse_args()
    if options.pin:
        pin()
        return 0
    failed = 0
    for extra, python, platform in itertools.product(options.extra, options.python, options.platform):
        reason, versions = resolve(extra, python, platform)
        known = IMPOSSIBLE.get((extra, platform))
        failed += bool(reason) != bool(known)
        text = f"{len(versions)} packages, jax {versions['jax']}" if versions else f"no: {known or reason}"
        print(f"{extra:12} {python} {platform:14} {text}", flush=True)
    print(f"{failed} unexpected" if failed else "all as expected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
