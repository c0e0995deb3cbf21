"""The datasheet in a report: found by its digests, made by the command on the page, read without JAX."""

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.programs import prepare_data, report
from fairkd_jax.report.blocks import Table
from fairkd_jax.report.data_sheet import read_data_sheet, show_data_sheet
from fairkd_jax.report.findings import collect_findings
from fairkd_jax.runs.folder import RunConfig
from tests.programs import run_program
from tests.report.conftest import HOSTILE
from tests.report.test_run_report import Page


def save(**changes):
    """A run on a manifest, as far as its datasheet matters."""
    data = {
        "name": "manifest",
        "source": "m.csv",
        "directory": "",
        "size": 8,
        "resize": "squash",
        "quality": 0,
    }
    data |= {"allow_duplicates": False, "control": "none", "manifest": {"class_names": [], "missing": []}}
    info = {"digests": {"train": "d"}, "num_examples": {"train": 3}}
    return RunConfig({"data": data | changes}, info, {})


def write_sheet(root, *, name="manifest", place="s8-squash-a/1.1.0", **changes):
    """A datasheet as `fairkd-prepare` leaves it, with the names of `HOSTILE`."""
    split = {"images": 3, "counts": [[1, 1]], "unknown": [1, 0], "digest": "d"}
    image = {"id": HOSTILE[0], "split": "train", "label": "a", "group": None, "kept": False}
    sheet = {
        "dataset": name,
        "size": 8,
        "options": {"missing": [HOSTILE[1], "?"], "seed": 0},
        "classes": ["a", "b"],
        "groups": ["g"],
        "splits": {"train": split},
        "source": HOSTILE[2],
        "prepared_at": "2026-01-01T00:00:00Z",
        "skipped": [{"name": f"{HOSTILE[0]}{n}", "reason": "too large"} for n in range(60)],
        "copies": {"summary": "1 image leaves train.", "sets": [[image, image | {"group": "g"}]]},
    }
    path = root / name / place / "counts.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(sheet | changes))
    return path.parent


def test_the_printed_command_makes_the_datasheet_that_the_report_then_finds(tmp_path, capsys):
    for n, name in enumerate(("a", "b", "c", "d")):
        buffer = io.BytesIO()
        Image.fromarray(np.full((9, 9, 3), n, np.uint8)).save(buffer, "PNG")
        (tmp_path / f"{name}.png").write_bytes(buffer.getvalue())
    rows = [
        "path,label,group,split",
        "a.png,cat,,train",
        "b.png,dog,x,train",
        "c.png,dog,x,test",
        "d.png,dog,x,val",
    ]
    (tmp_path / "m m.csv").write_text("\n".join(rows) + "\n")
    options = {"class_names": ["dog", "cat"], "group_names": [], "missing": ["?", "none of these"]}
    places = {"source": str(tmp_path / "m m.csv"), "directory": str(tmp_path / "d")}
    saved = save(**places, resize="pad", allow_duplicates=True, manifest=options)
    found = read_data_sheet(saved)
    assert found["sheet"] is None
    (text,) = [block.text for block in show_data_sheet(found)]
    assert prepare_data.main(shlex.split(text.split("`")[1])[1:]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[0].rpartition(": ")[2])
    described = json.loads((folder / "counts.json").read_text())
    digests = {name: part["digest"] for name, part in described["splits"].items()}
    saved = saved._replace(data_info={"digests": digests, "num_examples": {}})
    sheet = read_data_sheet(saved)["sheet"]
    assert sheet["folder"] == str(folder)
    assert sheet["classes"] == ["dog", "cat"]
    rows = {row[0]: row[1] for row in show_data_sheet({"command": "", "sheet": sheet})[0].rows}
    assert rows["options"] == "class_names = dog cat, group_names = , missing = ? none of these"
    assert rows["train"].startswith("2 images, 1 of an unknown group; hash ")
    assert read_data_sheet(saved._replace(config=save(**places, size=9).config))["sheet"] is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "digits", "digits": {"skew": 0.8, "seed": 0, "noise": 0.0}}, {"skew": 0.8, "seed": None}),
        ({"name": "utkface", "utkface": {"target": "race", "protected": "gender"}}, {"target": "race"}),
        (
            {"name": "wider_attribute", "wider_attribute": {"group_rule": "unanimous"}, "quality": 90},
            {"group_rule": "unanimous", "quality": 90},
        ),
        ({"max_bad_fraction": 0.5, "max_file_mib": 64.0}, {"max_bad_fraction": 0.5, "max_file_mib": 64.0}),
        ({"allow_duplicates": True}, {"allow_duplicates": True, "size": 8, "source": "m.csv"}),
    ],
)
def test_the_command_has_the_options_of_the_run(options, expected):
    words = shlex.split(read_data_sheet(save(directory="/nowhere", **options))["command"])
    parsed = vars(prepare_data._make_parser().parse_args(words[1:]))
    assert {key: parsed[key] for key in expected} == expected


def test_the_latest_datasheet_of_the_same_data_counts_and_others_do_no_harm(tmp_path):
    first = write_sheet(tmp_path)
    latest = write_sheet(tmp_path, place="s8-pad-b/1.1.0", prepared_at="2026-02-01T00:00:00Z")
    write_sheet(tmp_path, place="s9/1.1.0", size=9, prepared_at="2026-03-01T00:00:00Z")
    other = {"train": {"images": 3, "unknown": [0], "digest": "e"}}
    write_sheet(tmp_path, place="s8-c/1.1.0", splits=other, prepared_at="2026-03-01T00:00:00Z")
    for n, text in enumerate(["", "[]", "{}", '{"splits": [1]}', "no JSON"]):
        folder = tmp_path / "manifest" / f"damaged{n}" / "1.1.0"
        folder.mkdir(parents=True)
        (folder / "counts.json").write_text(text)
    saved = save(directory=str(tmp_path))
    assert read_data_sheet(saved)["sheet"]["folder"] == str(latest)
    (latest / "counts.json").unlink()
    assert read_data_sheet(saved)["sheet"]["folder"] == str(first)
    patched = save(directory=str(tmp_path), control="patch")
    patched = patched._replace(data_info={"digests": {"train": "p"}, "num_examples": {"train": 3}})
    assert read_data_sheet(patched)["sheet"] is not None  # a patch changes the digest alone


def test_the_page_folds_the_datasheet_and_shows_names_as_text(make_report_run, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRKD_DATA", str(tmp_path / "data"))
    splits = {"test": {"images": 400, "unknown": [9], "digest": "d", "persons": {"male": 7, "female": 8}}}
    splits["test"] |= {"images_with_a_tie": 5, "images_without_specified_persons": 6}
    write_sheet(tmp_path / "data", size=16, splits=splits)
    folder, _, _ = make_report_run(baseline=False)
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["data"]["size"] = 16
    content.pop("sha256", None)
    path.write_text(json.dumps(content))
    page = Page(report.write_report(folder).read_text(encoding="utf-8"))
    assert len(page.scripts) == 3
    assert HOSTILE[2] in page.texts
    assert any("persons: 7 male, 8 female; 5 images with as many" in text for text in page.texts)
    assert f"{HOSTILE[0]}49" in page.texts
    assert f"{HOSTILE[0]}50" not in page.texts
    assert any(f"contradictory: {HOSTILE[0]} (train, left out: a, unknown group)" in t for t in page.texts)
    blocks = show_data_sheet(collect_findings(folder)["data_sheet"])
    assert all(isinstance(block, Table) and block.is_folded for block in blocks)
    assert blocks[1].caption == "Files that were left out: the first 50 of 60"


def test_a_report_needs_no_jax(make_report_run):
    folder, _, _ = make_report_run()
    code = "import sys; from fairkd_jax.programs import report; report.main(sys.argv[1:]); "
    shown = run_program("-c", code + "print({'jax', 'flax'} & set(sys.modules))", folder)
    assert shown.stdout.splitlines()[-1] == "set()", shown.stderr
