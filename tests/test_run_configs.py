"""The file of a run with odd values: one line that names the key, whoever reads the run."""

import json
import math

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.runs.folder import read_run_config

ODD = {
    "data.image_size": (0, -1, "a", None, 2.5, 1e300, [], True),
    "data.size": (0, "x"),
    "data.name": (None, 5, []),
    "data.directory": (None, 5, "\0"),
    "data.digits": (5, [], None),
    "batch_size": (0, -5, "x", None, 10**18, 1.5),
    "epochs": ("x", None, [], math.inf, math.nan, 1e12, -1),
    "seed": (None, "x", {}, 0.5),
    "objectives": (None, "x", 5, [], [1], [["a"]], {"a": 1}),
    "adversary": (None, 5, []),
    "adversary.weight": ("x", None, math.nan),
    "student": (None, [], "x"),
    "student.architecture": (5, []),
    "student.dropout_rate": ("x", math.inf),
    "teacher.checkpoint": (5, [], "\0"),
    "augment": (None, []),
    "augment.saturation": (math.inf, None),
    "task": (None, [], {}),
    "task.class_names": (None, [], "abc", [1, 2]),
    "task.group_names": ([], [None]),
    "task.num_examples": (None, [], {"train": "x"}, {"train": -5}),
    "task.digests": ([], {"train": 5}),
    "task.teacher": (5, []),
    "version": (None, "x", 1.5, []),
}


@pytest.mark.parametrize("key", ODD)
def test_an_odd_value_is_refused_and_named(kept, tmp_path, key):
    content = json.loads((kept / "rkd_adv" / "config.json").read_text())
    for value in ODD[key]:
        *sections, name = key.split(".")
        changed = json.loads(json.dumps(content))
        place = changed
        for section in sections:
            place = place[section]
        place[name] = value
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=r"config\.json is damaged, or not the config of a run") as found:
            read_run_config(tmp_path)
        assert "\n" not in str(found.value), value


def test_odd_files_are_refused(kept, tmp_path):
    path = tmp_path / "config.json"
    deep = "[" * 100_000 + "]" * 100_000
    described = json.loads((kept / "rkd_adv" / "config.json").read_text()) | {"version": 1, "methods": 5}
    for content in (
        json.dumps(described).encode(),
        b"",
        b"null",
        b"[1]",
        b"{}",
        bytes(range(256)),
        bytes(99),
        b"{\xff}",
        deep.encode(),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is damaged"):
            read_run_config(tmp_path)
