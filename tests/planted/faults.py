"""The list of faults in `faults.toml`, and whether it is in order."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FAULTS = Path(__file__).with_name("faults.toml")
NUMBER, KNOWN = 44, 4  # faults in all, and those that the suite of the first run did not find
LEAST = dict.fromkeys(("benchmarks", "models", "ops", "report", "sweep"), 2)
LEAST |= dict.fromkeys(("data", "fairness", "objectives", "training"), 4)
KEYS = {"name", "kind", "file", "tests", "old", "new", "effect"}

Fault = dict[str, Any]


def read_faults() -> list[Fault]:
    """Returns all faults, in the order of the file."""
    return tomllib.loads(FAULTS.read_text(encoding="utf-8"))["fault"]


def part_of(file: str) -> str:
    """Returns the subpackage of a file, or else its first folder."""
    first, *rest = Path(file).parts
    return rest[0] if first == "fairkd_jax" and len(rest) > 1 else first


def changed(fault: Fault, root: Path) -> str:
    """Returns the text of the fault's file with the fault in it.

    Raises:
      ValueError: the old text does not occur exactly once.
    """
    text = (root / fault["file"]).read_text(encoding="utf-8")
    if (number := text.count(fault["old"])) != 1:
        raise ValueError(f"the old text occurs {number} times in {fault['file']}, not once")
    return text.replace(fault["old"], fault["new"])


def problems_of(faults: Sequence[Fault]) -> list[str]:
    """Returns what is wrong with the list of faults, a line each."""
    found = []
    for fault in faults:
        if missing := KEYS - fault.keys():
            return [f"{fault.get('name', '?')} lacks {', '.join(sorted(missing))}"]
        absent = [tests for tests in fault["tests"] if not (ROOT / tests).exists()]
        found += [f"{fault['name']}: there is no {tests}" for tests in absent]
        try:
            compile(changed(fault, ROOT), fault["file"], "exec")
        except (OSError, SyntaxError, ValueError) as error:
            found.append(f"{fault['name']}: {error}")
    names = Counter(fault["name"] for fault in faults)
    found += [f"{name} is there {number} times" for name, number in names.items() if number > 1]
    known = sum(fault.get("known_survivor", False) for fault in faults)
    if (len(faults), known) != (NUMBER, KNOWN):
        found.append(f"{len(faults)} faults, {known} of them known; there must be {NUMBER} and {KNOWN}")
    parts = Counter(part_of(fault["file"]) for fault in faults)
    wanted = {part: number for part, number in LEAST.items() if parts[part] < number}
    return found + [f"{part}: {parts[part]} faults of at least {n}" for part, n in wanted.items()]


def check() -> int:
    """Checks the list of faults and prints how they are spread; returns the exit code."""
    faults = read_faults()
    problems = problems_of(faults)
    if not problems:
        for of in (lambda fault: part_of(fault["file"]), lambda fault: fault["kind"]):
            print(", ".join(f"{key} {number}" for key, number in sorted(Counter(map(of, faults)).items())))
    print("\n".join(problems) or f"{len(faults)} faults, all in order")
    return 1 if problems else 0
