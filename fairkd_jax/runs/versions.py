"""Configs of runs that earlier versions wrote, read as if this version had written them.

Version 0 is every `config.json` without a `version`. A key that such a file lacks takes the value that means
the behaviour of that time, whatever the default is today. A renamed value takes its present name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

VERSION = 1
NAME_KEYS = ("class_names", "group_names")  # of a manifest; empty where the names in the manifest are taken

# Keys that were added to a section while files had no version, with the behaviour from before.
_ADDED: dict[str, dict[str, Any]] = {
    "student": {
        "dropout_rate": None,
        "stochastic_depth_rate": None,
        "pretrained": "",
        "frozen_norm": False,
        "norm_momentum": None,
        "rematerialize": False,
        "group_heads": False,
    },
    "teacher": {
        "checkpoint": "",
        "image_size": None,
        "pretrained": "",
        "frozen_norm": False,
        "norm_momentum": None,
        "rematerialize": False,
        "group_heads": False,
    },
    "data": {"quality": 0, "cache": "auto", "balance_groups": False, "control": "none"},
    "cross_entropy": {"balanced": False},
    "adversary": {"lambda_mode": "weight", "projection": False, "steps": 1},
}
# Keys that were added later, with the behaviour from before. While they have this value, a hash of a config
# leaves them out.
ADDED_KEYS: dict[str, Any] = {
    "writer": "",
    "optimizer.restart": False,
    "data.manifest.missing": [],
    "data.max_file_mib": 32.0,
    "data.allow_duplicates": False,
    "student.head": "auto",
    "student.norm_epsilon": None,
    "teacher.head": "auto",
    "teacher.norm_epsilon": None,
    "checkpoints.keep": 1,
    "checkpoints.keep_every_epochs": 0,
}
# Labels of the objectives of version 0 in tables, and which of them debias.
_LABELS = {
    "cross_entropy": "CE",
    "ckd": "CKD",
    "rkd_distance": "RKD-D",
    "rkd_angle": "RKD-A",
    "ctkd": "CTKD",
    "kdpp": "KD++",
    "dkd": "DKD",
    "dist": "DIST",
    "adversary": "adversary",
    "mfd": "MFD",
    "bias_critic": "bias critic",
}
_DEBIASING = ("adversary", "mfd", "bias_critic")


def upgrade(
    config: dict[str, Any], methods: dict[str, dict[str, Any]], version: int
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Returns the config and the methods of a run as this version writes them.

    Args:
      config: The config in the file, as nested dicts.
      methods: The descriptions of the objectives in the file; empty in version 0.
      version: The version of the file.
    """
    config.setdefault("checkpoints", {})
    for name, value in ADDED_KEYS.items():
        config = _add_key(config, name.split("."), value)
    if version >= 1:
        return config, methods
    for section, added in _ADDED.items():
        if section in config:
            config[section] = added | config[section]
    wider = config["data"].get("wider_attribute", {})
    if wider.get("split_rule") == "capstone":
        renamed = wider | {"split_rule": "half_test"}
        config["data"] = config["data"] | {"wider_attribute": renamed}
    methods = describe_earlier_objectives(config["objectives"])
    for name in {"adversary", "bias_critic"} & methods.keys():
        methods[name]["influence"] = _find_influence(config, name)
    return config, methods


def take_open_values(
    old: dict[str, Any], data_info: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the config of an earlier start as a new config says it, where both mean the same.

    Names of classes and groups may be listed or left open. An epsilon that is left open is the recorded one.

    Args:
      old: The config of the earlier start, as nested dicts.
      data_info: The description of the data that the earlier start has recorded.
      new: The config of this start, as nested dicts.
    """
    if new["student"].get("norm_epsilon") is None:
        old = old | {"student": old["student"] | {"norm_epsilon": None}}
    manifest, wanted = old["data"].get("manifest"), new["data"].get("manifest", {})
    if not manifest:
        return old
    same = {
        key: wanted[key]
        for key in NAME_KEYS
        if not manifest.get(key) and key in wanted and wanted[key] == data_info[key]
    }
    return old | {"data": old["data"] | {"manifest": manifest | same}}


def _add_key(tree: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Returns nested dicts with a key more, unless the key is there or its section is not."""
    name, *rest = path
    if not rest:
        return {name: value} | tree
    return tree | {name: _add_key(tree[name], rest, value)} if name in tree else tree


def describe_earlier_objectives(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describes objectives of version 0 as later versions do in `config.json`.

    Args:
      names: Names of objectives; the label of an unknown name is the name.

    Returns:
      For each name its `label`, whether the objective `debiases`, and its `influence`.
    """
    return {
        name: {
            "label": _LABELS.get(name, name),
            "debiases": name in _DEBIASING,
            "influence": "weighted",
        }
        for name in names
    }


def _find_influence(config: dict[str, Any], name: str) -> str:
    """Returns how an objective of version 0 acts on the student."""
    if name == "bias_critic":
        return "multiplier"
    if config[name]["projection"]:
        return "projection"
    return "ratio" if config[name]["lambda_mode"] == "ratio" else "reversal"
