"""Plants faults in copies of the repository, one at a time, and records which test finds each.

python tests/planted/run.py --results FILE.json [--workers N] [--only NAME ...] [--limit MINUTES]
python tests/planted/run.py --check
python tests/planted/run.py --table OLD.json NEW.json
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from faults import ROOT, Fault, changed, check, read_faults

PASSED, FAILED, INTERRUPTED = 0, 1, 2  # exit codes of pytest
_LINE = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)


class Unclear(RuntimeError):
    """What pytest did says nothing about a fault."""


def copy_to(folder: Path) -> None:
    """Copies what git tracks, and what it neither tracks nor ignores, as it stands now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not one that was deleted since
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def test(copy: Path, tests: Sequence[str], fault: Fault, options: argparse.Namespace, log: Path) -> str:
    """Runs pytest in a copy; returns what failed first, "time limit", or "" where all passed.

    Raises:
      Unclear: pytest ended in a way that says nothing about the fault.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-r", "fE", "--color=no", "-n", str(options.workers)]
    command += ["-o", f"cache_dir={options.cache}", *tests]
    # What a test starts imports the copy too, whatever is installed.
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    environment.pop("PYTEST_ADDOPTS", None)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=copy, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = process.wait(60 * options.limit)
        except subprocess.TimeoutExpired:
            return "time limit"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code == PASSED:
        return ""
    text = log.read_text(encoding="utf-8", errors="replace")
    failed = _LINE.search(text.rpartition("short test summary info")[2])
    # With -x and workers a failure interrupts too. A file that cannot be collected counts where the fault is
    # the reason.
    if failed and (code == FAILED or (code == INTERRUPTED and ("::" in failed[1] or fault["file"] in text))):
        return failed[1]
    words = f"{failed[1]} failed" if failed else (text.strip() or "no output").splitlines()[-1]
    raise Unclear(f"{fault['name']}: pytest ended with exit code {code}: {words}")


def try_out(fault: Fault, options: argparse.Namespace) -> dict[str, Any]:
    """Plants a fault in a copy and runs its own tests, then all others; returns the record."""
    start = time.monotonic()
    # The commit, and whether what was copied differs from it.
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    own = list(fault["tests"])
    runs = {"folder": own, "rest": ["tests", *(f"--ignore={tests}" for tests in own)]}
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        scratch, copy = Path(name), Path(name, "copy")
        copy_to(copy)
        (copy / fault["file"]).write_text(changed(fault, copy), encoding="utf-8")
        for where, tests in runs.items():
            by = test(copy, tests, fault, options, (options.logs or scratch) / f"{fault['name']}-{where}.log")
            if by:
                break
    record = {"name": fault["name"], "found": bool(by), "by": by or None, "where": where if by else None}
    return record | {"seconds": round(time.monotonic() - start), "commit": commit}


def run(options: argparse.Namespace) -> int:
    """Tries out each fault that has no result yet; returns the exit code."""
    faults = {fault["name"]: fault for fault in read_faults()}
    if unknown := set(options.only) - faults.keys():
        raise Unclear(f"there is no fault called {', '.join(sorted(unknown))}")
    results = read_results(options.results) if options.results.exists() else {}
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
    for name in options.only or faults:
        if name in results:
            continue
        results[name] = record = try_out(faults[name], options)
        temporary = options.results.with_name(f".{options.results.name}.tmp")
        temporary.write_text(json.dumps(list(results.values()), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, options.results)
        print(f"{name}: {record['by'] or 'SURVIVED'} ({record['seconds']} s)", flush=True)
    print(f"{sum(result['found'] for result in results.values())} of {len(results)} found")
    return 0


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the records of a file by the names of their faults."""
    return {record["name"]: record for record in json.loads(path.read_text(encoding="utf-8"))}


def table(old: Path, new: Path) -> str:
    """Returns what two suites find as a table in Markdown."""

    def found_by(results: Mapping[str, Any], name: str) -> str:
        return (f"`{results[name]['by']}`" if results[name]["found"] else "no") if name in results else ""

    both = [read_results(path) for path in (old, new)]
    rows = [("fault", "kind", "file", "found by in the old suite", "found by in the new suite"), ("---",) * 5]
    for fault in read_faults():
        found = (found_by(results, fault["name"]) for results in both)
        rows.append((fault["name"], fault["kind"], f"`{fault['file']}`", *found))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Does what the command line asks for; returns the exit code."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fairkd_jax" / "planted"
    parser = argparse.ArgumentParser(description="Plants faults and records which test finds each.")
    add = parser.add_argument
    add("--results", type=Path, help="This is the JSON file that the records go to.")
    add("--workers", type=int, default=2, help="So many tests run at once.")
    add("--only", nargs="+", default=[], metavar="NAME", help="No faults but these are tried out.")
    add("--limit", type=float, default=40.0, help="After so many minutes a run of pytest is stopped.")
    add("--logs", type=Path, help="What pytest prints goes into this folder.")
    add("--cache", type=Path, default=cache, help="What the copies compile is kept in this folder.")
    add("--check", action="store_true", help="The list of faults is checked, and nothing is run.")
    add("--table", type=Path, nargs=2, metavar="FILE", help="Two files of records are put side by side.")
    options = parser.parse_args()
    if options.check:
        return check()
    if options.table:
        print(table(*options.table))
        return 0
    if not options.results:
        parser.error("--results is needed")
    options.cache = options.cache.absolute()
    try:
        return run(options)
    except (Unclear, ValueError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
