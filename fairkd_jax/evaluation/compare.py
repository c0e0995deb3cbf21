"""The comparison of evaluated runs: methods over their seeds, and what their differences support.

Nothing here imports JAX.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluated_run import EvaluatedRun, check_same_images, read_run
from fairkd_jax.evaluation.methods import find_differences, group_by_method, read_key
from fairkd_jax.fairness.comparison import (
    SeedComparison,
    are_seeds_too_few,
    choose_verdict,
    compare_over_images,
    compare_over_seeds,
)
from fairkd_jax.fairness.inference import NUM_RESAMPLES, apply_holm_correction
from fairkd_jax.fairness.metrics import summarize
from fairkd_jax.runs.paths import BEST

# Keys of a run's summary; all but the last are compared.
MEASURES = (
    "accuracy",
    "mean_abs_disparity",
    "corrected_mean_abs_disparity",
    "d2",
    "worst_group_recall",
)
_JUDGED = ("mean_abs_disparity", "accuracy")
_CORRECTED = ("mean_abs_disparity",)  # for several comparisons; a correction would hide that accuracy fell
_LONGEST_NAME = 60


Method = list[EvaluatedRun]


def compare_runs(
    folders: Sequence[Path],
    *,
    split: str = "test",
    checkpoint: str = BEST,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """Compares evaluated runs.

    Runs that differ in their seed alone are one method. The first run's method is the reference.

    Args:
      folders: Folders of two or more runs.
      split: "train", "val" or "test".
      checkpoint: The scored checkpoint of every run: "best", "last" or the number of a step.
      num_resamples: Number of resamples and permutations of the images.

    Returns:
      The findings, ready for `make_jsonable`. `arms` holds each method with its `name`, its `runs` (folder,
      seed, scored step and measures), and `mean` and `deviation` over the runs. `comparisons` holds one entry
      for every method but the first, see `_compare_methods`, with `holm_p` and `verdict` for each judged
      measure.
      `holm_p` is corrected over the comparisons for the disparity, and never for accuracy.

    Raises:
      UsageError: A folder holds no evaluated run, or the runs cannot be compared.
    """
    if len(folders) < 2:
        raise UsageError("a comparison needs the folders of two runs or more")
    runs = [read_run(folder, split, checkpoint) for folder in folders]
    for run in runs[1:]:
        check_same_images(runs[0], run, split)
    methods = group_runs(runs)
    names, data_info = _name_methods(methods), runs[0].data_info
    described = [
        {"name": name} | _describe_runs([_measure_run(run) for run in method])
        for name, method in zip(names, methods, strict=True)
    ]
    comparisons = [
        _compare_methods(methods, names, described, number, num_resamples)
        for number in range(1, len(methods))
    ]
    for key in _JUDGED:
        p_values = [comparison["over_seeds"][key]["p"] for comparison in comparisons]
        if key in _CORRECTED:
            p_values = apply_holm_correction(p_values).tolist()
        for comparison, p in zip(comparisons, p_values, strict=True):
            _add_verdict(comparison, key, p, len(comparisons))
    return {
        "split": split,
        "checkpoint": checkpoint,
        **{key: data_info.get(key) for key in ("dataset", "class_names", "group_names")},
        "num_examples": len(runs[0].label),
        "arms": described,
        "comparisons": comparisons,
    }


def group_runs(runs: Sequence[EvaluatedRun]) -> list[Method]:
    """Groups runs that differ in their seed alone, in the order of the methods' first runs.

    Args:
      runs: Evaluated runs.

    Raises:
      UsageError: Two runs have the same config and the same seed.
    """
    methods = []
    for places in group_by_method([run.identity for run in runs]):
        by_seed: dict[int, EvaluatedRun] = {}
        for run in (runs[place] for place in places):
            if same := by_seed.get(run.seed):
                raise UsageError(
                    f"{same.folder} and {run.folder} have the same config and the same seed {run.seed};"
                    " leave one of them out"
                )
            by_seed[run.seed] = run
        methods.append([by_seed[seed] for seed in sorted(by_seed)])
    return methods


def _name_methods(methods: Sequence[Method]) -> list[str]:
    """Names each method by the keys that differ between methods; by a folder where that name is long."""
    reference = methods[0][0].identity
    keys = sorted({key for method in methods[1:] for key in find_differences(reference, method[0].identity)})
    configs = [method[0].identity.config for method in methods]
    names = [", ".join(f"{key}={read_key(config, key)}" for key in keys) for config in configs]
    if any(len(name) > _LONGEST_NAME for name in names) or len(set(names)) < len(names):
        return [str(method[0].folder) for method in methods]
    return names


def _measure_run(run: EvaluatedRun) -> dict[str, Any]:
    """Computes the run's measures from its predictions."""
    groups, classes = len(run.data_info["group_names"]), len(run.data_info["class_names"])
    counts = np.zeros((groups + 1, classes, classes), np.int64)
    row = np.where((run.group >= 0) & (run.group < groups), run.group, groups)
    np.add.at(counts, (row, run.label, run.prediction), 1)
    summary = summarize(counts, num_resamples=0)
    about = {"folder": str(run.folder), "seed": run.seed, "step": run.step}
    return about | {key: summary[key] for key in MEASURES}


def _describe_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the runs of a method with the mean and the deviation of each measure."""
    values = {key: np.array([run[key] for run in runs]) for key in MEASURES}
    spread = {key: float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for key, v in values.items()}
    return {"runs": runs, "mean": {key: float(np.mean(v)) for key, v in values.items()}, "deviation": spread}


def _find_common_seeds(method: Method, reference: Method, names: Sequence[str]) -> list[int]:
    """Returns the seeds that both methods have."""
    own = [{run.seed for run in runs} for runs in (method, reference)]
    seeds = sorted(own[0] & own[1])
    if not seeds:
        texts = [", ".join(map(str, sorted(found))) for found in own]
        raise UsageError(
            f"{names[0]} (seeds {texts[0]}) and {names[1]} (seeds {texts[1]}) have no seed in common;"
            " train both with the same seeds"
        )
    return seeds


def _compare_methods(
    methods: Sequence[Method],
    names: Sequence[str],
    described: Sequence[dict[str, Any]],
    number: int,
    num_resamples: int,
) -> dict[str, Any]:
    """Compares a method with the reference over the seeds that both have.

    Returns:
      `arm` and `reference`, the names; their common `seeds` and the seeds `left_out` of each; `teachers`, see
      `_compare_teachers`; `over_seeds`, for each measure the `differences` and the fields of
      `SeedComparison`; and `over_images`.
    """
    pair = (number, 0)
    seeds = _find_common_seeds(methods[number], methods[0], (names[number], names[0]))
    measured = [{run["seed"]: run for run in described[n]["runs"]} for n in pair]
    paired: dict[str, Any] = {}
    for key in MEASURES[:-1]:
        gap = [measured[0][seed][key] - measured[1][seed][key] for seed in seeds]
        tests = len(methods) - 1 if key in _CORRECTED else 1
        paired[key] = {"differences": gap} | compare_over_seeds(gap, tests=tests)._asdict()
    by_seed = [{run.seed: run for run in methods[n]} for n in pair]
    runs = [[side[seed] for seed in seeds] for side in by_seed]
    first = runs[0][0]
    images = compare_over_images(
        first.group,
        first.label,
        *(np.array([run.prediction == run.label for run in side]) for side in runs),
        groups=len(first.data_info["group_names"]),
        classes=len(first.data_info["class_names"]),
        num_resamples=num_resamples,
    )
    return {
        "arm": names[number],
        "reference": names[0],
        "seeds": seeds,
        "left_out": {
            "arm": sorted(by_seed[0].keys() - set(seeds)),
            "reference": sorted(by_seed[1].keys() - set(seeds)),
        },
        "teachers": _compare_teachers(*runs),
        "over_seeds": paired,
        "over_images": images,
    }


def _compare_teachers(method: Method, reference: Method) -> str:
    """Returns "one" teacher for all runs, the "same" for the runs of a seed, "other" teachers, or "none"."""
    known = {run.identity.teacher for run in method + reference}
    if "" in known:
        return "none"
    if len(known) == 1:
        return "one"
    same = all(a.identity.teacher == b.identity.teacher for a, b in zip(method, reference, strict=True))
    return "same" if same else "other"


def _add_verdict(comparison: dict[str, Any], key: str, holm_p: float, comparisons: int) -> None:
    """Adds `holm_p` of a measure, and the `verdict` on the measure."""
    found, seeds = comparison["over_seeds"][key], len(comparison["seeds"])
    over_seeds = SeedComparison(**{name: found[name] for name in SeedComparison._fields})
    too_few = are_seeds_too_few(over_seeds, seeds, tests=comparisons if key in _CORRECTED else 1)
    found["holm_p"] = holm_p
    found["verdict"] = choose_verdict(found["mean"], holm_p, seeds, too_few=too_few)
