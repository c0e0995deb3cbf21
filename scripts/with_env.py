"""Runs a command in a virtual environment of the project's own, which is made and filled when needed.

    python3 scripts/with_env.py [--extra NAME ...] [--venv DIR] COMMAND [ARGUMENT ...]

Needs Python 3.11 or later and pip; nothing outside the environment's folder (default: .venv) is changed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a command in the project's own virtual environment.")
    parser.add_argument("--extra", action="append", default=[], help="an optional part, such as gpu or dev")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the environment's folder")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args()
    if not options.command:
        parser.error("give a command to run, for example: python train.py --config configs/rkd_adv.py")
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        parser.error(f"Python {oldest} or later is needed, this is {sys.version.split()[0]}")
    import tomllib  # of Python 3.11 and later

    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in options.extra:
        if extra not in known["optional-dependencies"]:
            parser.error(f"there is no extra {extra!r}; one of {', '.join(known['optional-dependencies'])}")
    folder = options.venv.absolute()
    try:
        make(folder)
        install(folder, options.extra)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"with_env.py: the environment in {folder} could not be set up: {error}", file=sys.stderr)
        return 2
    environment = os.environ | {"VIRTUAL_ENV": str(folder)}
    environment["PATH"] = os.pathsep.join([str(programs(folder)), environment.get("PATH", "")])
    program = shutil.which(options.command[0], path=environment["PATH"])
    if program is None:
        parser.error(f"there is no program {options.command[0]!r}, neither in {folder} nor elsewhere")
    # In place of this process: a signal that is sent to it, Ctrl-C too, is for the command alone.
    os.execve(program, [program, *options.command[1:]], environment)


def programs(folder: Path) -> Path:
    """Where an environment keeps its programs."""
    return folder / ("Scripts" if os.name == "nt" else "bin")


def make(folder: Path) -> None:
    """Makes the environment, without a pip of its own where Python came without one to copy."""
    if (folder / "pyvenv.cfg").exists() and shutil.which("python", path=str(programs(folder))):
        return
    print(f"with_env.py: making a virtual environment in {folder}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)


def install(folder: Path, extras: list[str]) -> None:
    """Installs the project and its extras, unless the same was installed before."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    record = folder / "fairkd_jax-installed.txt"
    lines = record.read_text(encoding="utf-8").split() if record.exists() else []
    have = set(lines[1:]) if lines[:1] == [digest] else set()
    if lines[:1] == [digest] and set(extras) <= have:
        return
    wanted = sorted(have | set(extras))
    print("with_env.py: installing, which takes a minute or two", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "--disable-pip-version-check"]
    what = ["--editable", f"{ROOT}[{','.join(wanted)}]" if wanted else str(ROOT)]
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "install", "--quiet", *constraint, *what], check=True)
    temporary = record.with_suffix(".tmp")
    temporary.write_text("\n".join([digest, *wanted]) + "\n", encoding="utf-8")
    temporary.replace(record)


if __name__ == "__main__":
    sys.exit(main())
