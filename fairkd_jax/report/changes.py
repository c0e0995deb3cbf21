"""What moved since an earlier report."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairkd_jax.digests import read_json
from fairkd_jax.errors import UsageError, reading
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.report.blocks import Block, Section, Table, Text
from fairkd_jax.report.tables import ROWS, find_measure, format_number

Findings = Mapping[str, Any]


def read_earlier_report(path: Path) -> dict[str, Any]:
    """Reads the numbers of an earlier report.

    Args:
      path: Its report.json.

    Raises:
      UsageError: The file is not there, is damaged, or is not of a report.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the report.json in it")
    if not path.is_file():
        where = "" if path.exists() else explain_missing(path)
        raise UsageError(f"there is no file {path}{where}; name the report.json of an earlier report")
    with reading(str(path), "name the report.json of an earlier report"):
        found = read_json(path)
        if not {"data", "folder"} <= found.keys() or not {"models", "methods"} & found.keys():
            raise ValueError("it is no report")
        return found


def show_changes(earlier: Findings, findings: Findings) -> Section:
    """Shows each number that moved since an earlier report, with both values.

    Args:
      earlier: Numbers of the earlier report.
      findings: Numbers of this report, of the same kind.

    Raises:
      UsageError: One report is on a run, and the other on several runs.
    """
    kinds = ["models" if "models" in found else "methods" for found in (earlier, findings)]
    if len(set(kinds)) > 1:
        raise UsageError("--against: one report is on a run, and the other on a folder of runs")
    numbers = _list_numbers if kinds[0] == "models" else _list_means
    before, after = (dict(numbers(found)) for found in (earlier, findings))
    rows = []
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name, math.nan), after.get(name, math.nan)
        if old != new and not (math.isnan(old) and math.isnan(new)):
            change = "n/a" if math.isnan(new - old) else f"{new - old:+.4f}"
            rows.append([name, format_number(old), format_number(new), change])
    blocks: list[Block] = [Text(f"The earlier report is on {earlier['folder']}.")]
    if earlier["data"] != findings["data"]:
        text = (
            "The data of the two reports differ: a change may come from the images, and not from the models."
        )
        blocks.append(Text(text, "missing"))
    if rows:
        blocks.append(Table("What moved", ["number", "before", "now", "change"], rows))
        text = "A change says nothing about its cause, and may be chance: see the intervals of both reports."
        blocks.append(Text(text, "note"))
    else:
        blocks.append(Text("No number moved."))
    return Section("changes", "Since the earlier report", blocks)


def _list_numbers(findings: Findings) -> Iterator[tuple[str, float]]:
    """Yields the name and the value of each measure of each model."""
    for model, summary in findings["models"].items():
        for title, key in ROWS.items():
            value = find_measure(summary, key)
            if not isinstance(value, list):
                yield f"{model}: {title.strip()}", math.nan if value is None else float(value)


def _list_means(findings: Findings) -> Iterator[tuple[str, float]]:
    """Yields the name and the mean of each measure of each method."""
    for method in findings["methods"]:
        number = method["lambda"]
        text = "" if number is None or math.isnan(number) else f", lambda {number:g}"
        for name, found in method["measures"].items():
            mean = found["mean"]
            yield f"{method['family']}{text}: {name}", math.nan if mean is None else float(mean)
