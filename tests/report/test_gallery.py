"""The gallery: images of both kinds, drawn by a rule that anybody can repeat."""

import base64
import functools
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation import prediction
from fairkd_jax.programs import report
from fairkd_jax.report import gallery
from fairkd_jax.report.findings import collect_findings
from fairkd_jax.runs import loading
from tests.report.conftest import HOSTILE
from tests.report.test_run_report import Page


class Mapped:
    """A model whose evidence for class c is in corner c, and in corner 0 for the run with debiasing."""

    def __init__(self, model, batch_size):
        assert model.which == "best"
        self.is_baseline = model.folder.name == "baseline"

    def predict(self, pixels):
        maps = np.full((len(pixels), 2, 2, len(HOSTILE)), -1.0, np.float32)
        for c in range(len(HOSTILE)):
            place = c if self.is_baseline else 0
            maps[:, place // 2, place % 2, c] = 1.0
        return SimpleNamespace(maps=maps)


def load_stand_in(run, which, mesh, step=10):
    return SimpleNamespace(folder=run, which=which, step=step)


@pytest.fixture
def opened(make_report_run, monkeypatch):
    """A run and its images: the grey of each says its row."""
    folder, images, predictions = make_report_run()
    pixels = np.arange(len(images["label"]), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 8, 8, 3), np.uint8
    )
    split = SimpleNamespace(labels=images["label"], read_images=lambda rows: pixels[rows])
    dataset = SimpleNamespace(split=lambda name: split)
    monkeypatch.setattr(gallery, "open_recorded_data", lambda *_, **__: dataset)
    monkeypatch.setattr(loading, "load_model", load_stand_in)
    monkeypatch.setattr(prediction, "Predictor", Mapped)
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
    for block, (kind, rows) in zip(section.blocks[2:], kinds.items(), strict=True):
        assert block.title.startswith(kind)
        assert block.title.endswith(f"(5 of {len(rows)})")
        expected = np.sort(rng.permutation(rows)[:5])
        for picture, row in zip(block.pictures, expected.tolist(), strict=True):
            assert grey_of(picture.address) == row % 256
            before, after = (HOSTILE[predictions[name][row]] for name in ("baseline", "student"))
            assert picture.caption.endswith(f": {before}, then {after}")
            assert HOSTILE[images["label"][row]] in picture.alt


def find_orange(address, part):
    """The quarter of an image's part with the most red beyond blue."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(data)), np.int64)[:, 96 * part : 96 * (part + 1)]
    assert pixels.shape == (96, 96, 3)
    redness = (pixels[..., 0] - pixels[..., 2]).reshape(2, 48, 2, 48).sum(axis=(1, 3))
    return int(redness.argmax()) if redness.any() else None


def test_beside_each_image_is_the_evidence_for_each_student_s_own_answer(opened):
    folder, _, predictions, _ = opened
    findings = collect_findings(folder)
    section = gallery.make_gallery(folder, findings, count=4)
    right = {name: values == findings["label"] for name, values in predictions.items()}
    chosen = gallery.choose_changed(right["baseline"], right["student"], count=4, seed=0)
    for block, rows in zip(section.blocks[2:], chosen.values(), strict=True):
        for picture, row in zip(block.pictures, rows, strict=True):
            found = [find_orange(picture.address, part) for part in range(3)]
            assert found == [None, predictions["baseline"][row], 0]


def test_maps_of_one_pixel_are_left_out(opened, monkeypatch):
    monkeypatch.setattr(Mapped, "predict", lambda self, pixels: SimpleNamespace(maps=np.ones((8, 1, 1, 4))))
    folder, *_ = opened
    section = gallery.make_gallery(folder, collect_findings(folder), count=4)
    assert {picture.width for block in section.blocks[2:] for picture in block.pictures} == {96}
    assert "no class activation maps" in section.blocks[1].text


def test_a_model_that_was_trained_further_has_no_evidence_for_these_answers(opened, monkeypatch):
    monkeypatch.setattr(loading, "load_model", functools.partial(load_stand_in, step=12))
    with pytest.raises(
        UsageError, match="baseline was trained further since it was evaluated; run `fairkd-e"
    ):
        gallery.make_gallery(opened[0], collect_findings(opened[0]), count=4)


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
