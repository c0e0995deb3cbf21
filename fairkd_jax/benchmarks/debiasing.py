"""Ways of debiasing side by side: the same teachers and seeds, each run evaluated and probed."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairkd_jax.fairness.comparison import HIGHER, LOWER, over_seeds
from fairkd_jax.training import evaluate_run, teacher_config, train
from fairkd_jax.training.comparing import compare_runs

PROBED = ("embedding", "mlp")
_MAD, _CORRECTED = "mean_abs_disparity", "corrected_mean_abs_disparity"


def train_all(
    make: Callable[[str, int], Any], arms: Sequence[str], seeds: Sequence[int], folder: Path
) -> dict[str, list[Path]]:
    """Trains, evaluates and probes every arm with every seed; what is there already is not done again.

    Args:
      make: `(arm, seed) -> config`; the teacher of a seed is that of its first arm, and teaches all.
      arms: their names, which name the folders.
      seeds: of the runs.
      folder: where all runs go.

    Returns:
      Each arm's runs, in the order of the seeds.
    """
    folders: dict[str, list[Path]] = {arm: [] for arm in arms}
    total = len(arms) * len(seeds)
    for seed in seeds:
        teacher = folder / f"teacher-{seed}"
        train(teacher_config(make(arms[0], seed)), teacher, name=f"teacher {seed}")
        for arm in arms:
            workdir = folder / f"{arm}-{seed}"
            done = sum(map(len, folders.values()))
            config = make(arm, seed)
            config.teacher.checkpoint = str(teacher.absolute())
            train(config, workdir, name=f"[{done + 1}/{total}] {arm} {seed}")
            if not _is_probed(workdir):
                evaluate_run(workdir, probe=True)
            folders[arm].append(workdir)
    return folders


def _evaluation(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "eval" / "test.json").read_text(encoding="utf-8"))


def _is_probed(workdir: Path) -> bool:
    return (workdir / "eval" / "test.json").exists() and "probe" in _evaluation(workdir)["student"]


def summary_of(folders: Mapping[str, Sequence[Path]], reference: str) -> list[dict[str, Any]]:
    """A row for each arm: what it reaches over its seeds, and how it differs from the reference.

    Args:
      folders: each arm's runs.
      reference: the arm that is not debiased.

    Returns:
      Rows with `arm`; `accuracy`, `mean_abs_disparity`, `corrected_mean_abs_disparity` and `probe` (advantage
      over the label alone, in nats), each with what `OverSeeds` has; and, but for the reference, `difference`
      in disparity and `accuracy_difference`, likewise, with `holm_p` and the `verdict`. The first row is the
      teacher's.
    """
    others = [arm for arm in folders if arm != reference]
    compared = compare_runs([run for arm in (reference, *others) for run in folders[arm]])["comparisons"]
    evaluations = {arm: [_evaluation(run) for run in folders[arm]] for arm in (reference, *others)}
    rows = [{"arm": "teacher"} | _measures([found["teacher"] for found in evaluations[reference]])]
    rows.append({"arm": reference} | _measures([found["student"] for found in evaluations[reference]]))
    for arm, comparison in zip(others, compared, strict=True):
        found = comparison["over_seeds"]
        rows.append(
            {"arm": arm, "difference": found[_MAD], "accuracy_difference": found["accuracy"]}
            | _measures([one["student"] for one in evaluations[arm]])
        )
    return rows


def _measures(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = {key: [one[key] for one in summaries] for key in ("accuracy", _MAD, _CORRECTED)}
    features, kind = PROBED
    values["probe"] = [one["probe"][features][kind]["advantage"] for one in summaries]
    alarmed = sum(bool(one["alarms"]["raised"]) for one in summaries)
    return {key: over_seeds(found)._asdict() for key, found in values.items()} | {"alarmed": alarmed}


def markdown(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """The rows as a table in Markdown.

    Args:
      rows: as of `summary_of`.
      titles: what an arm is called; by its own name where it has none.
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
            _with_interval(row[_CORRECTED], "{:.3f}"),
            _with_interval(difference, "{:+.3f}") if difference else "",
            (_verdict(row) if difference else "") + _alarmed(row),
            _with_interval(row["probe"], "{:.2f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_interval(found: Mapping[str, float], form: str) -> str:
    if math.isnan(found["low"]):
        return form.format(found["mean"])
    return f"{form} ({form} to {form})".format(found["mean"], found["low"], found["high"])


def _alarmed(row: Mapping[str, Any]) -> str:
    """How many of the runs collapse or over-correct: what they reach is then no success."""
    return f"; **alarm** in {row['alarmed']} runs" if row["alarmed"] else ""


def _verdict(row: Mapping[str, Any]) -> str:
    """What the seeds carry, and of the accuracy where it changed too."""
    found, accuracy = row["difference"], row["accuracy_difference"]
    text = found["verdict"]
    if text not in (LOWER, HIGHER) and not math.isnan(found["detectable"]):
        text += f" (of {found['detectable']:.3f} it would have been)"
    if accuracy["verdict"] in (LOWER, HIGHER):
        text += f"; accuracy {accuracy['verdict']} by {abs(accuracy['mean']):.3f}"
    return text
