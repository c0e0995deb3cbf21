"""Writes a report on evaluated runs: one HTML page that opens without a network, and its numbers.

fairkd-report RUN|FOLDER [RUN|FOLDER ...] [--checkpoint best|last|STEP] [--figures DIR] [--against OLD.json]
              [--gallery N [--blur]]

RUN/report.html has figures with the table of their values; RUN/report.json has the numbers. The run without
debiasing, in RUN/baseline, is the student to compare with. A FOLDER of runs, such as that of a sweep, gets a
report on all its methods over their seeds. --checkpoint last makes RUN/report.last.html. --figures also
writes each figure as SVG and PDF, for papers.
--against shows what moved since the report.json of an earlier report. --gallery shows test images whose
answer debiasing has changed: whoever gets the page gets these images.
"""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fairkd_jax.cli import OneLineParser, parse_path_argument, print_lines
from fairkd_jax.errors import UsageError, reading
from fairkd_jax.files import make_jsonable, write_text
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.runs.paths import BEST

_OF_IMAGES = ("label", "group", "predictions")  # findings that are not for the JSON file
_LIBRARIES = ("fairkd_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "plotly")


def write_report(
    folder: Path,
    *,
    checkpoint: str = BEST,
    figures: Path | None = None,
    against: Path | None = None,
    gallery: int = 0,
    blur: bool = False,
) -> Path:
    """Writes `report.html` and `report.json` into the folder of an evaluated run, or of several runs.

    Args:
      folder: The run's folder, or the folder of the runs.
      checkpoint: The scored checkpoint of a run; its name is part of the names of the files, unless "best".
      figures: Folder for each figure as SVG and PDF; None for no such files.
      against: The report.json of an earlier report; None for none.
      gallery: Number of test images of each kind that the page shows; only of a run.
      blur: Whether to blur these images.

    Returns:
      The path of the page.

    Raises:
      UsageError: The folder holds no evaluated run, a file is damaged, or the extra `report` is missing.
      OSError: The files cannot be written.
    """
    from fairkd_jax.digests import write_json
    from fairkd_jax.evaluation.odd_files import blame_odd_evaluations
    from fairkd_jax.report.changes import read_earlier_report, show_changes
    from fairkd_jax.report.findings import collect_findings
    from fairkd_jax.report.html import render_page
    from fairkd_jax.report.run_sections import make_run_sections
    from fairkd_jax.report.static import save_figures
    from fairkd_jax.report.sweep_findings import collect_sweep
    from fairkd_jax.report.sweep_sections import make_sweep_sections
    from fairkd_jax.runs.paths import RunFolder

    own, is_run = RunFolder(folder), RunFolder(folder).is_run()
    _check_folder(folder, is_run, checkpoint, gallery)
    earlier = read_earlier_report(against) if against is not None else None
    with blame_odd_evaluations(folder):
        findings = collect_findings(folder, checkpoint) if is_run else collect_sweep(folder)
        findings["versions"] = _list_versions()
        sections = make_run_sections(findings) if is_run else make_sweep_sections(findings)
        if gallery:
            from fairkd_jax.report.gallery import make_gallery  # opens the data, which needs JAX

            sections.insert(-2, make_gallery(folder, findings, count=gallery, blur=blur))
        if earlier is not None:
            with reading(str(against), "name the report.json of an earlier report"):
                sections.insert(0, show_changes(earlier, findings))
    about = "how well each group is recognised" if is_run else "accuracy and disparity of all methods"
    subtitle = f"{findings['data']['dataset']}: {about}."
    page = render_page(f"Report on {folder.absolute().name}", subtitle, sections)
    content = {key: value for key, value in findings.items() if key not in _OF_IMAGES}
    write_json(own.report_numbers(checkpoint), make_jsonable(content))
    write_text(own.report(checkpoint), page)
    if figures is not None:
        save_figures(sections, figures)
    return own.report(checkpoint)


def _check_folder(folder: Path, is_run: bool, checkpoint: str, gallery: int) -> None:
    """Checks that there is a folder, and that it is a run where a wish is for runs alone."""
    if not folder.is_dir():
        absent = f"there is no folder {folder}{explain_missing(folder)}"
        what = f"{folder} is no folder" if folder.exists() else absent
        raise UsageError(f"{what}; name the folder of a run or of a sweep")
    if not is_run and gallery:
        raise UsageError(f"{folder} is no run; --gallery shows images of a single run")
    if not is_run and checkpoint != BEST:
        raise UsageError(f"{folder} is no run; leave --checkpoint out, for the best one of each run")


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
        "runs",
        type=parse_path_argument,
        nargs="+",
        metavar="RUN",
        help="Folder of an evaluated run, or of several.",
    )
    parser.add_argument(
        "--checkpoint",
        default=BEST,
        help="Scored checkpoint of a run: best (default), last or the number of a step.",
    )
    parser.add_argument(
        "--figures",
        type=parse_path_argument,
        metavar="DIR",
        help="Folder for each figure as SVG and PDF, of a single report.",
    )
    parser.add_argument(
        "--against",
        type=parse_path_argument,
        metavar="OLD.json",
        help="File report.json of an earlier report of the same kind.",
    )
    parser.add_argument(
        "--gallery",
        type=int,
        default=0,
        metavar="N",
        help="Number of images of each kind whose answer debiasing changed, on the page (default: none).",
    )
    parser.add_argument("--blur", action="store_true", help="Whether to blur the images of the gallery.")
    options = parser.parse_args(arguments)
    if options.gallery < 0:
        parser.error("--gallery is a number of images; use 0 or more")
    if (options.figures or options.against) and len(options.runs) > 1:
        parser.error("--figures and --against are for a single report; name one folder")
    if options.blur and not options.gallery:
        parser.error("--blur blurs the images of --gallery N; name their number")
    wishes = vars(options).copy()
    folders = wishes.pop("runs")
    return print_lines(parser.prog, (str(write_report(folder, **wishes)) for folder in folders))
