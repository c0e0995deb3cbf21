"""A path that is not there: what is there instead is named."""

import pytest

from fairkd_jax.configs.names import find_file
from fairkd_jax.data.catalog import make_plan
from fairkd_jax.errors import UsageError
from fairkd_jax.models.weights.files import read_checkpoint
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.runs.folder import read_run_config

NFC, NFD = "Jos\u00e9", "Jose\u0301"


@pytest.mark.parametrize(
    ("there", "wanted", "difference"),
    [
        ("Faces/a.tar", "faces/A.tar", "capital letters"),
        (f"{NFD}/a.csv", f"{NFC}/a.csv", "the Unicode form of its letters (NFC, NFD)"),
        (f"{NFC}/a.csv", f"{NFD}/a.csv", "the Unicode form of its letters (NFC, NFD)"),
        ("faces /a.csv", "faces/a.csv", "blanks around a name"),
        ("faces/a.csv", "faces/a.csv ", "blanks around a name"),
        ("faces/a.csv", "faces\\a.csv", "/ for \\"),
        (f"{NFD}/a.csv", f"{NFC} \\A.csv", None),
    ],
)
def test_a_twin_is_named_with_its_difference(tmp_path, there, wanted, difference):
    path = tmp_path / there
    path.parent.mkdir()
    path.write_text("")
    found = explain_missing(tmp_path / wanted)
    assert found.startswith(f"; {path} is there, which differs in ")
    if difference:
        assert found.endswith(f" differs in {difference}")
    else:
        assert found.count(" and ") == 3


def test_without_a_twin_the_last_folder_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    assert explain_missing(tmp_path / "a" / "b" / "c") == f"; of this path, only {tmp_path / 'a'} is there"
    assert explain_missing(tmp_path / "a" / "b") == ""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert explain_missing(tmp_path / "link") == f"; it is a link to {tmp_path / 'gone'}, which is not there"
    for odd in ("nul\0", "x" * 5000):
        assert "\n" not in explain_missing(tmp_path / odd)


def test_users_of_each_kind_of_path_are_told(tmp_path):
    for name in ("Run", "UTKFace.ZIP", "Table.csv", "Weights.h5", "Mine.py"):
        (tmp_path / name).mkdir()
    form = {"size": 8, "resize": "squash", "quality": 0, "max_file_mib": 1.0, "options": {}}
    refused = {
        "Run": lambda: read_run_config(tmp_path / "run"),
        "Table.csv": lambda: make_plan("manifest", source=str(tmp_path / "table.csv"), **form),
        "Weights.h5": lambda: read_checkpoint(tmp_path / "weights.h5"),
        "Mine.py": lambda: find_file(str(tmp_path / "mine.py")),
    }
    for name, call in refused.items():
        with pytest.raises(UsageError, match=f"{tmp_path / name} is there, which differs in capital letters"):
            call()
    plan = make_plan("utkface", source=str(tmp_path / "utkface.zip"), **form)
    assert f"{tmp_path / 'UTKFace.ZIP'} is there" in plan.missing_message
    plan = make_plan("wider_attribute", source=str(tmp_path / "RUN"), **form)
    assert f"{tmp_path / 'Run'} is there" in plan.missing_message
