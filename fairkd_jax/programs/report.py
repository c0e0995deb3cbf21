"""Writes a report on evaluated runs: one HTML page that opens without a network, and its numbers.

fairkd-report RUN|FOLDER [RUN|FOLDER ...]

RUN/report.html has figures with the table of their values; RUN/report.json has the numbers. The run without
debiasing, in RUN/baseline, is the student to compare with. A FOLDER of runs, such as that of a sweep, gets a
report on all its methods over their seeds.
"""

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fairkd_jax.cli import OneLineParser
from fairkd_jax.errors import UsageError
from fairkd_jax.files import make_jsonable, write_text

_LIBRARIES = ("fairkd_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "plotly")


def write_report(folder: Path) -> Path:
    """Writes `report.html` and `report.json` into the folder of an evaluated run, or of several runs.

    Args:
      folder: The run's folder, or the folder of the runs.

    Returns:
      The path of the page.

    Raises:
      UsageError: The folder holds no evaluated run, a file is damaged, or the extra `report` is missing.
      OSError: The files cannot be written.
    """
    from fairkd_jax.digests import write_json
    from fairkd_jax.report.findings import collect_findings
    from fairkd_jax.report.html import render_page
    from fairkd_jax.report.run_sections import make_run_sections
    from fairkd_jax.report.sweep_findings import collect_sweep
    from fairkd_jax.report.sweep_sections import make_sweep_sections
    from fairkd_jax.runs.folder import RunFolder

    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name the folder of a run or of a sweep")
    is_run = RunFolder(folder).is_run()
    findings = collect_findings(folder) if is_run else collect_sweep(folder)
    findings["versions"] = _list_versions()
    what = "how well each group is recognised" if is_run else "accuracy and disparity of all methods"
    page = render_page(
        f"Report on {folder.absolute().name}",
        f"{findings['data']['dataset']}: {what}.",
        make_run_sections(findings) if is_run else make_sweep_sections(findings),
    )
    images = ("label", "group", "predictions")
    content = {key: value for key, value in findings.items() if key not in images}
    write_json(folder / "report.json", make_jsonable(content))
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _list_versions() -> dict[str, Any]:
    found = {"Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Writes the reports that the command line asks for.

    Args:
      arguments: Arguments of the command line; None for those of the process.

    Returns:
      The exit code: 0, or 2 after a user's mistake.
    """
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="Folder of an evaluated run, or of several."
    )
    options = parser.parse_args(arguments)
    try:
        for folder in options.runs:
            print(write_report(folder))
    except UsageError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{parser.prog}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0
