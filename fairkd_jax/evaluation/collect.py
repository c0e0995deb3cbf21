"""The evaluated runs of a folder, a row each: their differing keys, their measures, their validation.

Nothing here imports JAX.
"""

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.evaluation.compare import MEASURES
from fairkd_jax.evaluation.methods import group_by_method, identify_run
from fairkd_jax.natural_order import sort_names
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.runs.folder import (
    FREE_KEYS,
    SWEEP_TEACHERS,
    RunConfig,
    flatten,
    read_run_config,
    without_unused,
)
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.status import (
    count_run_steps,
    find_saved_step,
    find_scored_step,
    make_eval_command,
    read_evaluation,
    read_metrics,
)

VALIDATION = "val_"  # prefix of measures on the validation split
GAP = "gap/"  # prefix of a class
PROBE = "probe/"
SEED = "seed"
TEACHER = "teacher"  # the column of its fingerprint, where the fingerprint tells runs apart
INTERVAL = ("corrected_low", "corrected_high")
P_VALUE = "any_bias_p"
Row = dict[str, Any]


class CollectedRuns:
    """The runs of a folder.

    Attributes:
      rows: For each run: `run`, the keys that differ between the runs, `seed`, the measures on test and
        (behind `val_`) on validation, advantages of probes, and the gap of each class.
      keys: The keys that differ, with the seed at the end.
      methods: For each run, a value that is equal for runs of one method.
      images: For each run, the digest of its validation images.
      left_out: Number of runs without a row, by the reason.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the runs.

        Args:
          folder: The folder of the runs.

        Raises:
          UsageError: There is no evaluated run, or a file is damaged.
        """
        if not folder.is_dir():
            near = "" if folder.exists() else explain_missing(folder)
            raise UsageError(f"there is no folder {folder}{near}")
        found = {run: _explain_omission(run) for run in find_runs(folder)}
        self.left_out = Counter(why for why in found.values() if why)
        done = [run for run, why in found.items() if not why]
        if not done:
            reasons = "; ".join(f"{number} {why}" for why, number in self.left_out.items())
            raise UsageError(f"{folder} holds no evaluated run ({reasons or 'and no other'})")
        saved = [read_run_config(run) for run in done]
        identities, configs = [], []
        for run, own in zip(done, saved, strict=True):
            with reading(str(RunFolder(run).config), "train the run again"):
                identities.append(identify_run(own))
                configs.append(_flatten_used(own))
        self.images = [str(own.data_info["digests"].get("val")) for own in saved]
        numbers = {
            place: number for number, method in enumerate(group_by_method(identities)) for place in method
        }
        self.methods: list[Hashable] = [numbers[place] for place in range(len(done))]
        self.keys = find_differing(configs)
        seeds = [identity.seed for identity in identities]
        if len(set(zip(self.methods, seeds, strict=True))) < len(done):
            # The same seed twice is no second seed. The teachers tell such runs apart.
            teachers = [identity.teacher for identity in identities]
            self.methods = list(zip(self.methods, teachers, strict=True))
            configs = [values | {TEACHER: t} for values, t in zip(configs, teachers, strict=True)]
            self.keys.insert(0, TEACHER)
        self.rows = [
            {"run": _name_run(run, folder)}
            | {key: _make_cell(values.get(key)) for key in self.keys}
            | read_measures(run)
            for run, values in zip(done, configs, strict=True)
        ]


def _explain_omission(run: Path) -> str:
    """Returns the reason why a run has no row; an empty text for a run with a row."""
    if RunFolder(run).diverged.exists():
        return "as diverged"
    step = find_scored_step(run, "test")
    if step is None:
        return "as not evaluated yet"
    with reading(str(RunFolder(run).config), "train the run again"):
        steps = count_run_steps(read_run_config(run))
    best, last = (find_saved_step(run, which) for which in ("best", "last"))
    if last and (last < steps or step != best):  # a run without checkpoints cannot be judged
        return "as trained further since it was evaluated"
    return ""


def find_runs(folder: Path) -> Iterator[Path]:
    """Yields the folders of runs below a folder, in the natural order of their names.

    Members of populations count. Teachers and baselines of runs, and the teachers of a sweep, do not.

    Args:
      folder: The folder to search.
    """
    here = RunFolder(folder)
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if here.is_run():
        yield folder
    for path in (folder / name for name in sort_names(names)):
        is_part = here.is_run() or here.is_population() or path.name == SWEEP_TEACHERS
        if path == here.members or not is_part:
            yield from find_runs(path)


def _name_run(run: Path, folder: Path) -> str:
    return folder.name if run == folder else str(run.relative_to(folder))


def _flatten_used(saved: RunConfig) -> dict[str, Any]:
    """Returns all keys of a config but those of unused objectives."""
    return flatten(without_unused(saved.config, set(saved.config["objectives"])))


def find_differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys in which configs differ, and at the end always the seed.

    Args:
      configs: Flat configs, see `flatten`.
    """
    keys = {key for config in configs for key in config} - set(FREE_KEYS) - {SEED}
    unequal = [key for key in sorted(keys) if len({json.dumps(c.get(key)) for c in configs}) > 1]
    return [*unequal, SEED]


def _make_cell(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, list) else value


def read_measures(run: Path) -> Row:
    """Reads the measures of an evaluated run.

    Args:
      run: The run's folder.
    """
    folder = RunFolder(run)
    test = _read_evaluation(run, "test")
    student = test["student"]
    row = _take_measures(student)
    if find_scored_step(run, "val") == student["step"]:
        validation = _take_measures(_read_evaluation(run, "val")["student"])
    else:
        validation = _read_validation(folder.metrics, student["step"])
    row |= {f"{VALIDATION}{key}": validation.get(key) for key in row}
    for source, kinds in student.get("probe", {}).items():
        row |= {f"{PROBE}{source}_{kind}": found["advantage"] for kind, found in kinds.items()}
    gaps = zip(test["class_names"], student["disparity"], strict=True)
    return row | {f"{GAP}{name}": gap for name, gap in gaps}


def _read_evaluation(run: Path, split: str) -> dict[str, Any]:
    content = read_evaluation(run, split)
    with reading(str(RunFolder(run).evaluation(split)), f"run `{make_eval_command(run, split)}` again"):
        _take_measures(content["student"])
        return content


def _take_measures(student: Mapping[str, Any]) -> Row:
    row = {key: student[key] for key in MEASURES}
    row |= dict(zip(INTERVAL, student["corrected_interval"], strict=True))
    return row | {P_VALUE: student[P_VALUE]}


def _read_validation(path: Path, step: int) -> Row:
    """Reads the validation of a checkpoint during the training."""
    if not path.exists():
        return {}
    lines = read_metrics(path)
    prefix = "validation/"
    for line in lines:
        if line["step"] == step and f"{prefix}accuracy" in line:
            return {key.removeprefix(prefix): v for key, v in line.items() if key.startswith(prefix)}
    return {}


def to_number(value: Any) -> float:
    """Returns a measure as a number; NaN for a measure that is absent or was not estimable."""
    return math.nan if value is None else float(value)
