"""Comparison of debiasing methods: same teachers and seeds, each run evaluated and probed."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairkd_jax.evaluation.compare import compare_runs
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.fairness.comparison import HIGHER, LOWER, NOTHING, compare_over_seeds
from fairkd_jax.recipe.related import teacher_config
from fairkd_jax.report.tables import read_warnings
from fairkd_jax.runs.status import find_scored_step, read_evaluation
from fairkd_jax.training import train

PROBED = ("embedding", "mlp")
_MAD, _CORRECTED = "mean_abs_disparity", "corrected_mean_abs_disparity"


def train_all(
    make: Callable[[str, int], Any], methods: Sequence[str], seeds: Sequence[int], folder: Path
) -> dict[str, list[Path]]:
    """Trains, evaluates and probes every method with every seed; finished runs are kept.

    Args:
      make: Function `(method, seed) -> config`. The teacher of a seed is the teacher of the first method; all
        methods learn from this teacher.
      methods: Names of the methods, which also name the folders.
      seeds: Seeds of the runs.
      folder: Folder of all runs.

    Returns:
      The folders of each method's runs, in the order of the seeds.

    Raises:
      UsageError: A config is invalid, or a folder holds another run.
    """
    folders: dict[str, list[Path]] = {method: [] for method in methods}
    total = len(methods) * len(seeds)
    for seed in seeds:
        teacher = folder / f"teacher-{seed}"
        train(teacher_config(make(methods[0], seed)), teacher, name=f"teacher {seed}")
        for method in methods:
            workdir = folder / f"{method}-{seed}"
            done = sum(map(len, folders.values()))
            config = make(method, seed)
            config.teacher.checkpoint = str(teacher.absolute())
            train(config, workdir, name=f"[{done + 1}/{total}] {method} {seed}")
            if find_scored_step(workdir, "test", probed=True) is None:
                evaluate_run(workdir, probe=True)
            folders[method].append(workdir)
    return folders


def summarize_methods(folders: Mapping[str, Sequence[Path]], reference: str) -> list[dict[str, Any]]:
    """Summarizes each method over its seeds and compares each method with the reference.

    Args:
      folders: Folders of each method's runs.
      reference: Name of the method without debiasing.

    Returns:
      A row for the teacher, then a row for the reference, then a row for each other method. Every row has

      - `arm`, the name of the method;
      - `accuracy`, `mean_abs_disparity`, `corrected_mean_abs_disparity` and `probe` (advantage over the label
        alone, in nats), each with the fields of `SeedComparison`;
      - `alarmed`, the number of runs with a warning.

      Rows after the reference also have `difference` (in disparity) and `accuracy_difference`, each with the
      fields of `SeedComparison`, `holm_p` and `verdict`.

    Raises:
      UsageError: The runs cannot be compared.
    """
    others = [method for method in folders if method != reference]
    ordered = (reference, *others)
    comparisons = compare_runs([run for method in ordered for run in folders[method]])["comparisons"]
    evaluations = {method: [read_evaluation(run, "test") for run in folders[method]] for method in ordered}
    teachers, students = (
        [evaluation[model] for evaluation in evaluations[reference]] for model in ("teacher", "student")
    )
    rows = [{"arm": "teacher"} | _summarize_seeds(teachers), {"arm": reference} | _summarize_seeds(students)]
    for method, comparison in zip(others, comparisons, strict=True):
        differences = comparison["over_seeds"]
        rows.append(
            {
                "arm": method,
                "difference": differences[_MAD],
                "accuracy_difference": differences["accuracy"],
            }
            | _summarize_seeds([evaluation["student"] for evaluation in evaluations[method]])
        )
    return rows


def _summarize_seeds(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns mean and interval of each measure over the seeds of a method."""
    values = {key: [summary[key] for summary in summaries] for key in ("accuracy", _MAD, _CORRECTED)}
    features, kind = PROBED
    values["probe"] = [summary["probe"][features][kind]["advantage"] for summary in summaries]
    alarmed = sum(bool(read_warnings(summary)) for summary in summaries)
    return {key: compare_over_seeds(found)._asdict() for key, found in values.items()} | {"alarmed": alarmed}


def format_markdown(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Formats the rows as a table in Markdown.

    Args:
      rows: Rows from `summarize_methods`.
      titles: Title of each method; a method without a title is shown by its name.

    Returns:
      The lines of the table.
    """
    lines = [
        "| method | accuracy | MAD | corrected MAD (95 %) | MAD less that without debiasing (95 %)"
        " | verdict on MAD | probe (95 %) |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        difference = row.get("difference")
        cells = [
            titles.get(row["arm"], row["arm"]),
            f"{row['accuracy']['mean']:.3f}",
            f"{row[_MAD]['mean']:.3f}",
            _format_interval(row[_CORRECTED], "{:.3f}"),
            _format_interval(difference, "{:+.3f}") if difference else "",
            (_format_verdict(row) if difference else "") + _format_warnings(row),
            _format_interval(row["probe"], "{:.2f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format_interval(found: Mapping[str, float], form: str) -> str:
    if math.isnan(found["low"]):
        return form.format(found["mean"])
    return f"{form} ({form} to {form})".format(found["mean"], found["low"], found["high"])


def _format_warnings(row: Mapping[str, Any]) -> str:
    """Returns a text with the number of runs that collapse or over-correct; such a run is no success."""
    return f"; **warning** in {row['alarmed']} runs" if row["alarmed"] else ""


def _format_verdict(row: Mapping[str, Any]) -> str:
    """Returns the verdict on disparity, and the verdict on accuracy if accuracy changed too."""
    difference, accuracy = row["difference"], row["accuracy_difference"]
    text = difference["verdict"]
    if text == NOTHING and not math.isnan(difference["detectable"]):
        text += f" (of {difference['detectable']:.3f} it would have been)"
    if accuracy["verdict"] in (LOWER, HIGHER):
        text += f"; accuracy {accuracy['verdict']} by {abs(accuracy['mean']):.3f}"
    return text
