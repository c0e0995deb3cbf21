"""Evaluated runs of a folder, a row each: what they differ in, what they reach, and what validation says."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.objectives import OBJECTIVES
from fairkd_jax.sweep.folders import saved_step, scored
from fairkd_jax.sweep.grid import flat
from fairkd_jax.sweep.plan import OWN_TEACHER, TEACHERS
from fairkd_jax.training.comparing import MEASURES
from fairkd_jax.training.config import total_steps
from fairkd_jax.training.member import DIVERGED_FILE
from fairkd_jax.training.workdir import FREE_KEYS, plain, read_config

VALIDATION = "val_"  # in front of what was measured on the validation split
GAP = "gap/"  # in front of a class
PROBE = "probe/"
SEED = "seed"
TEACHER = "teacher"  # its fingerprint, where it tells runs apart
INTERVAL = ("corrected_low", "corrected_high")
P_VALUE = "any_bias_p"
_NO_METHOD = {SEED, *FREE_KEYS}  # keys of the config that make no other method
_NESTED = ("members",)  # below a run, what holds runs of their own; its teacher and its baseline do not count
Row = dict[str, Any]


class Gathered:
    """The runs of a folder.

    Attributes:
      rows: of each run: `run`, the keys that differ between the runs, `seed`, the measures on test and,
        behind `val_`, on validation, advantages of probes, and the gap of each class.
      keys: the keys that differ, the seed among them.
      methods: of each run, what it is but for its seed.
      images: of each run, the digest of its validation images.
      left_out: how many runs have no row, by the reason.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the runs.

        Raises:
          UsageError: there is no evaluated run, or a file is damaged.
        """
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}")
        found = {run: _why_left_out(run) for run in runs_below(folder)}
        self.left_out = Counter(why for why in found.values() if why)
        done = [run for run, why in found.items() if not why]
        if not done:
            reasons = "; ".join(f"{number} {why}" for why, number in self.left_out.items())
            raise UsageError(f"{folder} holds no evaluated run ({reasons or 'and no other'})")
        configs, methods, self.images, teachers = [], [], [], []
        for run in done:
            with reading(str(run / "config.json"), "train the run anew"):
                config, task = read_config(run)
                values = _used(plain(config))
                configs.append(values)
                same = _NO_METHOD | (OWN_TEACHER if values.get("teacher.checkpoint") else set())
                method = {key: value for key, value in values.items() if key not in same}
                teacher = task.get("teacher", {})
                teachers.append(str(teacher.get("fingerprint", "")))
                digests = task["digests"]
                described = [method, teacher.get("architecture", ""), digests]
                methods.append(json.dumps(described, sort_keys=True))
                self.images.append(str(digests.get("val")))
        runs = list(zip(methods, (values[SEED] for values in configs), strict=True))
        self.keys = differing(configs)
        if len(set(runs)) < len(runs):
            # A seed twice is no second seed: what is left to tell such runs apart is who taught them.
            methods = [f"{method} {teacher}" for method, teacher in zip(methods, teachers, strict=True)]
            configs = [values | {TEACHER: t} for values, t in zip(configs, teachers, strict=True)]
            self.keys.insert(0, TEACHER)
        self.methods = methods
        self.rows = [
            {"run": _name(run, folder)} | {key: _cell(values.get(key)) for key in self.keys} | measured(run)
            for run, values in zip(done, configs, strict=True)
        ]


def _why_left_out(run: Path) -> str:
    """Why a run has no row; empty where it has one."""
    if (run / DIVERGED_FILE).exists():
        return "as diverged"
    step = scored(run, "test")
    if step is None:
        return "as not evaluated yet"
    with reading(str(run / "config.json"), "train the run anew"):
        config, task = read_config(run)
        steps = total_steps(config, task["num_examples"]["train"])
    best, last = (saved_step(run, which) for which in ("best", "last"))
    if last and (last < steps or step not in (best, last)):  # without its checkpoints it is not known
        return "as trained further since it was evaluated"
    return ""


def runs_below(folder: Path) -> Iterator[Path]:
    """Folders of runs, in the order of their names: also members of populations, but not the teachers and
    baselines of runs, nor the teachers of a sweep.
    """
    is_run = (folder / "config.json").exists()
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if is_run:
        yield folder
    for path in inside:
        if path.name in _NESTED or not (is_run or (folder / "members").is_dir() or path.name == TEACHERS):
            yield from runs_below(path)


def _name(run: Path, folder: Path) -> str:
    return folder.name if run == folder else str(run.relative_to(folder))


def _used(config: Mapping[str, Any]) -> dict[str, Any]:
    """All keys of a config but those of objectives that it does not use."""
    unused = set(OBJECTIVES) - set(config["objectives"])
    return flat({key: value for key, value in config.items() if key not in unused})


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which runs differ, the seed at the end, and always there."""
    keys = {key for config in configs for key in config} - set(FREE_KEYS) - {SEED}
    unequal = [key for key in sorted(keys) if len({json.dumps(c.get(key)) for c in configs}) > 1]
    return [*unequal, SEED]


def _cell(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, list) else value


def measured(run: Path) -> Row:
    """What an evaluated run reaches."""
    test = _evaluation(run / "eval" / "test.json")
    student = test["student"]
    row = _measures(student)
    if scored(run, "val") == student["step"]:
        validation = _measures(_evaluation(run / "eval" / "val.json")["student"])
    else:
        validation = _at_checkpoint(run / "metrics.jsonl", student["step"])
    row |= {f"{VALIDATION}{key}": validation.get(key) for key in row}
    for source, kinds in student.get("probe", {}).items():
        row |= {f"{PROBE}{source}_{kind}": found["advantage"] for kind, found in kinds.items()}
    gaps = zip(test["class_names"], student["disparity"], strict=True)
    return row | {f"{GAP}{name}": gap for name, gap in gaps}


def _evaluation(path: Path) -> dict[str, Any]:
    with reading(str(path), f"run `python eval.py --workdir {path.parents[1]} --split {path.stem}` again"):
        content = json.loads(path.read_text(encoding="utf-8"))
        _measures(content["student"])
        return content


def _measures(student: Mapping[str, Any]) -> Row:
    row = {key: student[key] for key in MEASURES}
    row |= dict(zip(INTERVAL, student["corrected_interval"], strict=True))
    return row | {P_VALUE: student[P_VALUE]}


def _at_checkpoint(path: Path, step: int) -> Row:
    """What the validation said of a checkpoint while the run was training."""
    if not path.exists():
        return {}
    with reading(str(path), "train the run anew"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    prefix = "validation/"
    for line in lines:
        if line["step"] == step and f"{prefix}accuracy" in line:
            return {key.removeprefix(prefix): v for key, v in line.items() if key.startswith(prefix)}
    return {}


def number(value: Any) -> float:
    """A measure as a number; NaN where it could not be estimated, or was not."""
    return math.nan if value is None else float(value)
