"""The gallery: images of both kinds, drawn by a rule that anybody can repeat."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.programs import report
from fairkd_jax.report import gallery
from fairkd_jax.report.findings import collect_findings
from tests.report.conftest import HOSTILE
from tests.report.test_run_report import Page


@pytest.fixture
def opened(make_report_run, monkeypatch):
    """A run and its images: the grey of each says its row."""
    folder, images, predictions = make_report_run()
    pixels = np.arange(len(images["label"]), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 8, 8, 3), np.uint8
    )
    split = SimpleNamespace(labels=images["label"], read_images=lambda rows: pixels[rows])
    monkeypatch.setattr(gallery, "parse_recorded_data", lambda saved: None)
    monkeypatch.setattr(gallery, "open_data", lambda data: SimpleNamespace(split=lambda name: split))
    return folder, images, predictions, split


def grey_of(address):
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return int(np.asarray(Image.open(io.BytesIO(data)))[40, 40, 0])


@pytest.mark.parametrize("blur", [False, True])
def test_each_image_is_one_whose_answer_changed_with_its_answers(opened, blur):
    folder, images, predictions, _ = opened
    section = gallery.make_gallery(folder, collect_findings(folder), count=5, blur=blur)
    right = {name: values == images["label"] for name, values in predictions.items()}
    kinds = {
        "Mended": np.flatnonzero(~right["baseline"] & right["student"]),
        "Broken": np.flatnonzero(right["baseline"] & ~right["student"]),
    }
    rng = np.random.default_rng(0)
    for block, (kind, rows) in zip(section.blocks[1:], kinds.items(), strict=True):
        assert block.title.startswith(kind)
        assert block.title.endswith(f"(5 of {len(rows)})")
        expected = np.sort(rng.permutation(rows)[:5])
        for picture, row in zip(block.pictures, expected.tolist(), strict=True):
            assert grey_of(picture.address) == row % 256
            before, after = (HOSTILE[predictions[name][row]] for name in ("baseline", "student"))
            assert picture.caption.endswith(f": {before}, then {after}")
            assert HOSTILE[images["label"][row]] in picture.alt


def test_the_page_shows_the_gallery_and_runs_nothing_of_it(opened):
    folder, *_ = opened
    page = Page(report.write_report(folder, gallery=3).read_text(encoding="utf-8"))
    shown = page.all("img")
    assert len(shown) == 6
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in shown)
    assert len(page.scripts) == 3


def test_other_data_or_no_student_to_compare_with_are_one_line(opened, make_report_run, tmp_path, capsys):
    folder, images, _, split = opened
    split.labels = images["label"][::-1]
    assert report.main([str(folder), "--gallery", "3"]) == 2
    assert "are not those that" in capsys.readouterr().err
    (folder / "baseline" / "eval" / "test.json").unlink()
    assert report.main([str(folder), "--gallery", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no student without debiasing" in line
    with pytest.raises(SystemExit):
        report.main([str(folder), "--gallery", "-1"])
