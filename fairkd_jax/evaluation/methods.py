"""The rule which runs are one method: runs that differ in their seed alone.

Nothing here imports JAX.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fairkd_jax.recipe.keys import TEACHER_KEYS
from fairkd_jax.runs.folder import FREE_KEYS, RunConfig, config_diff, flatten, without_unused


class RunIdentity(NamedTuple):
    """The part of a run's config that tells methods apart.

    Attributes:
      seed: Seed of the run.
      config: The config without the seed, with the description of the data as its "task".
      has_given_teacher: Whether another run trained the teacher.
      teacher: Fingerprint of the teacher; empty for a run without a teacher.
    """

    seed: int
    config: dict[str, Any]
    has_given_teacher: bool
    teacher: str


def identify_run(saved: RunConfig) -> RunIdentity:
    """Returns the identity of a run.

    Args:
      saved: The content of the run's `config.json`.
    """
    config, data_info = dict(saved.config), dict(saved.data_info)
    seed = int(config.pop("seed"))
    config["teacher"] = dict(config["teacher"])
    has_given_teacher = bool(config["teacher"].get("checkpoint"))
    teacher = data_info.pop("teacher", {})
    if teacher:  # a given teacher may have another architecture than the config says
        config["teacher"]["architecture"] = teacher["architecture"]
    fingerprint = str(teacher.get("fingerprint", ""))
    return RunIdentity(seed, config | {"task": data_info}, has_given_teacher, fingerprint)


def find_differences(first: RunIdentity, other: RunIdentity) -> list[str]:
    """Returns the keys in which two runs are different methods; empty for runs of one method."""
    # Both directions, because `config_diff` lets `epochs` grow.
    lines = config_diff(first.config, other.config) + config_diff(other.config, first.config)
    keys = {line.partition(" (was ")[0] for line in lines}
    if first.has_given_teacher or other.has_given_teacher:
        keys -= {f"teacher.{key}" for key in TEACHER_KEYS}
    return sorted(keys)


def group_by_method(runs: Sequence[RunIdentity]) -> list[list[int]]:
    """Groups runs of one method.

    Args:
      runs: Identities of the runs.

    Returns:
      The places of the runs of each method, in the order of the methods' first runs.
    """
    methods: list[list[int]] = []
    by_key: dict[str, list[list[int]]] = {}
    for place, run in enumerate(runs):
        # Equal keys leave only the teachers to compare, so that many runs take little time.
        similar = by_key.setdefault(_make_key(run), [])
        found = next((method for method in similar if not find_differences(runs[method[0]], run)), None)
        if found is None:
            found = []
            similar.append(found)
            methods.append(found)
        found.append(place)
    return methods


def _make_key(run: RunIdentity) -> str:
    """Returns a text that is equal for runs of one method, however their teachers were trained."""
    ignored = {*FREE_KEYS, *(f"teacher.{key}" for key in TEACHER_KEYS)}
    values = flatten(without_unused(run.config, set(run.config["objectives"])))
    return json.dumps(
        {
            key: float(value) if isinstance(value, int | float) else value
            for key, value in sorted(values.items())
            if key not in ignored and value is not None
        }
    )


def read_key(config: Mapping[str, Any], key: str) -> str:
    """Returns the value of a key with dots as text."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None:
        return "unset"
    return ("+".join(map(str, found)) if isinstance(found, list) else str(found)) or "empty"
