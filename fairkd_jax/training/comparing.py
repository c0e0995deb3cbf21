"""Comparing runs: which are one method with several seeds, and how the methods differ."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.fairness import summarize
from fairkd_jax.fairness.comparison import over_images, over_seeds, verdict
from fairkd_jax.fairness.inference import DRAWS, holm
from fairkd_jax.training.config import TEACHER_KEYS
from fairkd_jax.training.workdir import differences, plain, read_config

# Keys of a run's summary; all but the last are compared.
MEASURES = (
    "accuracy",
    "mean_abs_disparity",
    "corrected_mean_abs_disparity",
    "d2",
    "worst_group_recall",
)
_JUDGED = ("mean_abs_disparity", "accuracy")
_LONGEST_NAME = 60


class Run(NamedTuple):
    """An evaluated run.

    Attributes:
      folder: as it was given.
      seed: of the run.
      config: with the task as its "task", without what may differ between the runs of one arm.
      given_teacher: whether its teacher is another run's.
      teacher: fingerprint of its teacher; empty where it has none.
      checkpoint: which one was evaluated: "best", "last" or a step.
      label: int [N] in [0, C).
      group: int [N], -1 where unknown.
      prediction: int [N] in [0, C).
      ids: str [N].
    """

    folder: Path
    seed: int
    config: dict[str, Any]
    given_teacher: bool
    teacher: str
    checkpoint: str
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    prediction: NDArray[np.int64]
    ids: NDArray[np.str_]

    @property
    def task(self) -> dict[str, Any]:
        return self.config["task"]


Arm = list[Run]


def compare_runs(folders: Sequence[Path], *, split: str = "test", draws: int = DRAWS) -> dict[str, Any]:
    """Compares evaluated runs: those that differ in their seed alone are an arm, the first is the reference.

    Args:
      folders: of the runs, two or more.
      split: "train", "val" or "test".
      draws: of simulations over images.

    Returns:
      What was measured, ready for `jsonable`: `arms`, each with its `name`, `runs` (folder, seed and
      measures), and `mean` and `deviation` over them; and `comparisons`, one for every arm but the first, see
      `_compared`, with `holm_p` over them of what is judged.

    Raises:
      UsageError: a folder holds no evaluated run, or the runs cannot be compared.
    """
    if len(folders) < 2:
        raise UsageError("a comparison needs the folders of two runs or more")
    runs = [read_run(folder, split) for folder in folders]
    for run in runs[1:]:
        _check_same_images(runs[0], run, split)
    arms = arms_of(runs)
    names, task = _names(arms), runs[0].task
    described = [
        {"name": name} | _described([_measured(run) for run in arm])
        for name, arm in zip(names, arms, strict=True)
    ]
    comparisons = [_compared(arms, names, described, number, draws) for number in range(1, len(arms))]
    for key in _JUDGED:
        adjusted = holm([comparison["over_seeds"][key]["p"] for comparison in comparisons])
        for comparison, p in zip(comparisons, adjusted.tolist(), strict=True):
            _judge(comparison, key, p)
    return {
        "split": split,
        **{key: task.get(key) for key in ("dataset", "class_names", "group_names")},
        "num_examples": len(runs[0].label),
        "arms": described,
        "comparisons": comparisons,
    }


def read_run(folder: Path, split: str) -> Run:
    """Reads an evaluated run.

    Raises:
      UsageError: the folder holds no run, or none that was evaluated on the split, or a file is damaged.
    """
    config, task = read_config(folder)
    command = f"python eval.py --workdir {folder} --split {split}"
    evaluation, predictions = folder / "eval" / f"{split}.json", folder / "predictions" / f"{split}.npz"
    if not (evaluation.exists() and predictions.exists()):
        raise UsageError(f"{folder} was not evaluated on {split}; run `{command}` first")
    with reading(str(evaluation), f"run `{command}` again"):
        written = json.loads(evaluation.read_text(encoding="utf-8"))
        if "student" not in written:
            raise ValueError("no student in it")
        checkpoint = str(written["checkpoint"])
    with (
        reading(str(predictions), f"run `{command}` again"),
        predictions.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        label, group, prediction = (
            np.asarray(arrays[name]).astype(np.int64, casting="safe")
            for name in ("label", "group", "student_prediction")
        )
        ids = np.asarray(arrays["id"])
        classes = len(task["class_names"])
        if not (label.ndim == 1 and ids.shape == label.shape == group.shape == prediction.shape):
            raise ValueError("arrays of unequal lengths")
        if not label.size or min(label.min(), prediction.min()) < 0:
            raise ValueError("no images, or labels below 0")
        if max(label.max(), prediction.max()) >= classes:
            raise ValueError(f"labels beyond the {classes} classes")
    with reading(str(folder / "config.json"), "train the run anew"):
        identity = _identity(plain(config), dict(task))
        return Run(folder, *identity, checkpoint, label, group, prediction, ids)


def _identity(config: dict[str, Any], task: dict[str, Any]) -> tuple[int, dict[str, Any], bool, str]:
    """A run's seed, what makes it a run of its arm, whether its teacher is another run's, and which it is."""
    seed, given = int(config.pop("seed")), bool(config["teacher"].get("checkpoint"))
    teacher = task.pop("teacher", {})
    if teacher:  # which a checkpoint may have brought with it
        config["teacher"]["architecture"] = teacher["architecture"]
    return seed, config | {"task": task}, given, str(teacher.get("fingerprint", ""))


def _check_same_images(first: Run, other: Run, split: str) -> None:
    for key, words in (("class_names", "classes"), ("group_names", "groups")):
        if first.task[key] != other.task[key]:
            raise UsageError(f"{first.folder} and {other.folder} have other {words}; they cannot be compared")
    if first.checkpoint != other.checkpoint:
        raise UsageError(
            f"{first.folder} was evaluated at its checkpoint {first.checkpoint}, {other.folder} at"
            f" {other.checkpoint}; evaluate both at the same with eval.py --checkpoint"
        )
    for name in ("ids", "label", "group"):
        if not np.array_equal(getattr(first, name), getattr(other, name)):
            raise UsageError(
                f"{first.folder} and {other.folder} were evaluated on other {split} images, labels or"
                " groups; they cannot be compared"
            )


def _differing(first: Run, other: Run) -> list[str]:
    """The keys in which two runs differ, but for those that may within an arm."""
    lines = differences(first.config, other.config) + differences(other.config, first.config)
    keys = {line.partition(" (was ")[0] for line in lines}  # in both directions, as `epochs` may grow
    if first.given_teacher or other.given_teacher:
        keys -= {f"teacher.{key}" for key in TEACHER_KEYS}
    return sorted(keys)


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Puts runs that differ in their seed alone together, in the order of their first ones.

    Raises:
      UsageError: two runs are the same.
    """
    arms: list[Arm] = []
    for run in runs:
        arm = next((arm for arm in arms if not _differing(arm[0], run)), None)
        if arm is None:
            arms.append([run])
            continue
        same = next((other for other in arm if other.seed == run.seed), None)
        if same:
            raise UsageError(
                f"{same.folder} and {run.folder} have the same config and the same seed {run.seed};"
                " leave one of them out"
            )
        arm.append(run)
    return [sorted(arm, key=lambda run: run.seed) for arm in arms]


def _names(arms: Sequence[Arm]) -> list[str]:
    """Calls each arm by what differs between the arms; by a folder where that is long."""
    reference = arms[0][0]
    keys = sorted({key for arm in arms[1:] for key in _differing(reference, arm[0])})
    names = [", ".join(f"{key}={_value(arm[0].config, key)}" for key in keys) for arm in arms]
    if any(len(name) > _LONGEST_NAME for name in names) or len(set(names)) < len(names):
        return [str(arm[0].folder) for arm in arms]
    return names


def _value(config: dict[str, Any], key: str) -> str:
    """What a config has under a key with dots."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None:
        return "unset"
    return ("+".join(map(str, found)) if isinstance(found, list) else str(found)) or "empty"


def _measured(run: Run) -> dict[str, Any]:
    """The run's measures, from its predictions."""
    groups, classes = len(run.task["group_names"]), len(run.task["class_names"])
    counts = np.zeros((groups + 1, classes, classes), np.int64)
    row = np.where((run.group >= 0) & (run.group < groups), run.group, groups)
    np.add.at(counts, (row, run.label, run.prediction), 1)
    summary = summarize(counts, draws=0)
    return {"folder": str(run.folder), "seed": run.seed} | {key: summary[key] for key in MEASURES}


def _described(runs: list[dict[str, Any]]) -> dict[str, Any]:
    values = {key: np.array([run[key] for run in runs]) for key in MEASURES}
    spread = {key: float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for key, v in values.items()}
    return {"runs": runs, "mean": {key: float(np.mean(v)) for key, v in values.items()}, "deviation": spread}


def _compared(
    arms: Sequence[Arm], names: Sequence[str], described: Sequence[dict[str, Any]], number: int, draws: int
) -> dict[str, Any]:
    """An arm minus the reference, over the seeds that both have.

    Returns:
      `arm`, `reference`, their `seeds` in common, and those `left_out` of each; `teachers`: "one" for all,
      the "same" for the runs of a seed, "other" ones, or "none"; `over_seeds`, by measure the `differences`
      and what `OverSeeds` has; and `over_images`.
    """
    pair = (number, 0)
    by_seed = [{run.seed: run for run in arms[n]} for n in pair]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        own = [", ".join(map(str, sorted(runs))) for runs in by_seed]
        raise UsageError(
            f"{names[number]} (seeds {own[0]}) and {names[0]} (seeds {own[1]}) have no seed in common;"
            " train both with the same seeds"
        )
    measured = [{run["seed"]: run for run in described[n]["runs"]} for n in pair]
    paired: dict[str, Any] = {}
    for key in MEASURES[:-1]:
        gap = [measured[0][seed][key] - measured[1][seed][key] for seed in seeds]
        tests = len(arms) - 1 if key in _JUDGED else 1
        paired[key] = {"differences": gap} | over_seeds(gap, tests=tests)._asdict()
    runs = [[side[seed] for seed in seeds] for side in by_seed]
    first = runs[0][0]
    images = over_images(
        first.group,
        first.label,
        *(np.array([run.prediction == run.label for run in side]) for side in runs),
        groups=len(first.task["group_names"]),
        classes=len(first.task["class_names"]),
        draws=draws,
    )
    return {
        "arm": names[number],
        "reference": names[0],
        "seeds": seeds,
        "left_out": {
            "arm": sorted(by_seed[0].keys() - set(seeds)),
            "reference": sorted(by_seed[1].keys() - set(seeds)),
        },
        "teachers": _teachers(*runs),
        "over_seeds": paired,
        "over_images": images,
    }


def _teachers(arm: Arm, reference: Arm) -> str:
    known = {run.teacher for run in arm + reference}
    if "" in known:
        return "none"
    if len(known) == 1:
        return "one"
    same = all(a.teacher == b.teacher for a, b in zip(arm, reference, strict=True))
    return "same" if same else "other"


def _judge(comparison: dict[str, Any], key: str, holm_p: float) -> None:
    """Adds `holm_p` of a measure, and the `verdict` on it."""
    found = comparison["over_seeds"][key]
    found["holm_p"] = holm_p
    found["verdict"] = verdict(found["mean"], holm_p, len(comparison["seeds"]))
