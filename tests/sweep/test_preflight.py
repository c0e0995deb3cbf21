"""A sweep refuses, before anything starts, what its runs would refuse."""

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.digests import write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.runs.folder import to_json_dict
from fairkd_jax.sweep.planned_runs import plan_runs
from tests.sweep.conftest import ROOT, TASK, make_config

SPLITS = ("train", "train", "val", "test")


@pytest.fixture
def manifest(tmp_path):
    """Eight images of the classes -1 and 1 and of two groups."""
    rows = ["path,label,group,split"]
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{(-1) ** number},{number // 4},{SPLITS[number % 4]}")
    path = tmp_path / "images.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def plan(manifest, tmp_path):
    """Returns a function (changes) -> the planned runs of two seeds; `name` is the config."""

    def make(name="student", **changes):
        fixed = {"data.name": "manifest", "data.source": str(manifest), "data.directory": str(tmp_path / "d")}
        fixed |= {"batch_size": 2} | {key.replace("__", "."): value for key, value in changes.items()}
        file = ROOT / "configs" / f"{name}.py"
        return plan_runs(make_config(file), {"seed": ["0", "1"]}, fixed, tmp_path / "all", with_data=True)

    return make


@pytest.mark.parametrize("names", [(-1, 1), (1, -1), ()])
def test_names_that_are_numbers_are_names(plan, names):
    assert len(plan(data__manifest__class_names=names)) == 2


def test_data_that_are_not_prepared_are_checked_by_their_names(plan, tmp_path):
    (tmp_path / "run").mkdir()
    for changes, message in (
        ({"data__manifest__class_names": (0, 1)}, r"^seed=0: .*row 2: unknown label '-1'; use one of 0, 1"),
        ({"data__source": str(tmp_path / "none.csv")}, r"^seed=0: there is no manifest at"),
        ({"batch_size": 5}, r"batch_size=5 is more than the 4 training images; use 4 or less"),
        ({"student__pretrained": str(tmp_path / "w.h5")}, r"^seed=0: there is no checkpoint file"),
        ({"name": "ckd", "teacher__checkpoint": str(tmp_path / "run")}, r"^seed=0: .* holds no run"),
    ):
        with pytest.raises(UsageError, match=message):
            plan(**changes)
    assert not (tmp_path / "d").exists()


def test_prepared_data_are_checked_as_a_start_does(plan, manifest, tmp_path):
    open_dataset("manifest", source=str(manifest), directory=tmp_path / "d", size=32)
    config = to_json_dict(make_config(ROOT / "configs" / "student.py")({}))
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", config | {"version": 1, "task": TASK})
    assert len(plan(cross_entropy__balanced=True)) == 2
    for changes, message in (
        ({"batch_size": 5}, "batch_size=5 is more than the 4 training images"),
        ({"best__max_disparity": 0.1}, "needs a class with at least 2 validation images"),
        ({"name": "ckd", "teacher__checkpoint": str(tmp_path / "run")}, "trained for other classes"),
    ):
        with pytest.raises(UsageError, match=f"^seed=0: .*{message}"):
            plan(**changes)
