"""Runs a command in the project's own virtual environment, which is created and filled if necessary.

    python3 scripts/with_env.py [--extra NAME ...] [--venv DIR] COMMAND [ARGUMENT ...]

The program needs Python 3.11 or later and pip. Only the environment's folder (default: .venv) is changed.
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
    """Prepares the environment and replaces this process by the command.

    Returns:
      The exit code 2, if the environment cannot be set up.
    """
    parser = argparse.ArgumentParser(description="Runs a command in the project's own virtual environment.")
    parser.add_argument(
        "--extra", action="append", default=[], help="Optional dependencies to install, such as gpu or dev."
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="Folder of the environment.")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="Command to run, with its arguments."
    )
    options = parser.parse_args()
    if not options.command:
        parser.error("give a command to run, for example: python train.py --config configs/rkd_adv.py")
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        parser.error(
            f"Python {oldest} or later is needed, but this is Python {sys.version.split()[0]};"
            " start with_env.py with a newer Python"
        )
    import tomllib  # in Python 3.11 and later

    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in options.extra:
        if extra not in known["optional-dependencies"]:
            parser.error(
                f"there is no extra {extra!r}; use one of {', '.join(known['optional-dependencies'])}"
            )
    folder = options.venv.absolute()
    try:
        make_environment(folder)
        install_project(folder, options.extra)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"with_env.py: the environment in {folder} could not be set up: {error}", file=sys.stderr)
        return 2
    environment = os.environ | {"VIRTUAL_ENV": str(folder)}
    environment["PATH"] = os.pathsep.join([str(get_programs_folder(folder)), environment.get("PATH", "")])
    program = shutil.which(options.command[0], path=environment["PATH"])
    if program is None:
        parser.error(f"there is no program {options.command[0]!r}, neither in {folder} nor elsewhere")
    # The command replaces this process, so a signal (Ctrl-C too) reaches only the command.
    os.execve(program, [program, *options.command[1:]], environment)


def get_programs_folder(folder: Path) -> Path:
    """Returns the folder of an environment's programs."""
    return folder / ("Scripts" if os.name == "nt" else "bin")


def make_environment(folder: Path) -> None:
    """Creates the environment without pip; some Pythons have no pip to copy.

    Args:
      folder: Folder of the environment.

    Raises:
      subprocess.CalledProcessError: Python could not create the environment.
    """
    if (folder / "pyvenv.cfg").exists() and shutil.which("python", path=str(get_programs_folder(folder))):
        return
    print(f"with_env.py: making a virtual environment in {folder}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)


def install_project(folder: Path, extras: list[str]) -> None:
    """Installs the project and its extras, unless they are installed already.

    Args:
      folder: Folder of the environment.
      extras: Names of optional dependencies in pyproject.toml.

    Raises:
      subprocess.CalledProcessError: pip failed.
    """
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
