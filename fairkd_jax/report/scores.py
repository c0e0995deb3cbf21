"""The tables of scored runs, printed and written beside the scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.files import write_text
from fairkd_jax.report.population_table import format_population
from fairkd_jax.report.tables import format_comparison, format_recall_by_group
from fairkd_jax.report.text_table import WIDE, Style
from fairkd_jax.runs.paths import RunFolder


def write_tables(workdir: Path, evaluation: Mapping[str, Any], style: Style = WIDE) -> str:
    """Writes the tables of an evaluation into the run's folder, in the first process.

    Args:
      workdir: The run's folder.
      evaluation: Result of `evaluate_run`.
      style: Form of the tables that are returned; those in the file have no limit of width.

    Returns:
      The tables.

    Raises:
      OSError: The file cannot be written.
    """
    split, checkpoint = evaluation["split"], evaluation["checkpoint"]
    scores = RunFolder(workdir).evaluation(split, checkpoint)

    def format_tables(style: Style) -> str:
        comparison, recall = (
            format_comparison(evaluation, style),
            format_recall_by_group(evaluation, scores, style),
        )
        return f"{comparison}\n\n{recall}"

    _write(workdir, evaluation, format_tables(WIDE))
    return format_tables(style)


def write_population_tables(
    workdir: Path,
    folders: Mapping[str, Path],
    evaluations: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
    style: Style = WIDE,
) -> str:
    """Writes the table of a population's members into its folder, and each member's tables into its own.

    Args:
      workdir: The population's folder.
      folders: The folder of each member, by the member's name.
      evaluations: Result of `evaluate_run` for each member, by its name.
      notes: Lines below the table.
      style: Form of the table that is returned; the one in the file has no limit of width.

    Returns:
      The table of all members, and the notes.

    Raises:
      OSError: A file cannot be written.
    """
    for name, evaluation in evaluations.items():
        write_tables(folders[name], evaluation)
    text = "\n".join([format_population(evaluations), *notes])
    _write(workdir, next(iter(evaluations.values())), text)
    return "\n".join([format_population(evaluations, style), *notes])


def _write(workdir: Path, evaluation: Mapping[str, Any], text: str) -> None:
    path = RunFolder(workdir).tables(evaluation["split"], evaluation["checkpoint"])
    if not jax.process_index():
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{text}\n")
