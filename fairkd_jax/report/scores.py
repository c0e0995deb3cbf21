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


def format_tables(workdir: Path, evaluation: Mapping[str, Any], style: Style = WIDE) -> str:
    """Formats the tables of an evaluation.

    Args:
      workdir: The run's folder.
      evaluation: Result of `evaluate_run`.
      style: Form of the tables.
    """
    scores = RunFolder(workdir).evaluation(evaluation["split"], evaluation["checkpoint"])
    recall = format_recall_by_group(evaluation, scores, style)
    return f"{format_comparison(evaluation, style)}\n\n{recall}"


def format_members(
    evaluations: Mapping[str, Mapping[str, Any]], notes: Sequence[str] = (), style: Style = WIDE
) -> str:
    """Formats the table of a population's members.

    Args:
      evaluations: Result of `evaluate_run` for each member, by its name.
      notes: Lines below the table.
      style: Form of the table.
    """
    return "\n".join([format_population(evaluations, style), *notes])


def write_tables(workdir: Path, evaluation: Mapping[str, Any]) -> None:
    """Writes the tables of an evaluation into the run's folder, in the first process.

    Args:
      workdir: The run's folder.
      evaluation: Result of `evaluate_run`.

    Raises:
      OSError: The file cannot be written.
    """
    _write(workdir, evaluation, format_tables(workdir, evaluation))


def write_member_tables(
    workdir: Path,
    folders: Mapping[str, Path],
    evaluations: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> None:
    """Writes the table of a population's members into its folder, and each member's tables into its own.

    Args:
      workdir: The population's folder.
      folders: The folder of each member, by the member's name.
      evaluations: Result of `evaluate_run` for each member, by its name.
      notes: Lines below the table.

    Raises:
      OSError: A file cannot be written.
    """
    for name, evaluation in evaluations.items():
        write_tables(folders[name], evaluation)
    _write(workdir, next(iter(evaluations.values())), format_members(evaluations, notes))


def _write(workdir: Path, evaluation: Mapping[str, Any], text: str) -> None:
    path = RunFolder(workdir).tables(evaluation["split"], evaluation["checkpoint"])
    if not jax.process_index():
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{text}\n")
