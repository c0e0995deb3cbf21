"""What the demo shows, without its web server."""

import base64
import dataclasses
import io
import json
import shutil
import socket
import sys
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from fairkd_jax.demo.examples import Examples, collect_examples
from fairkd_jax.demo.page import DemoPage
from fairkd_jax.demo.shown_models import load_shown_models
from fairkd_jax.demo.uploads import MAX_UPLOAD_BYTES, ImageForm, read_upload
from fairkd_jax.errors import UsageError
from fairkd_jax.programs import demo
from fairkd_jax.runs.dataset import open_data, parse_recorded_data
from fairkd_jax.runs.folder import read_run_config

FORM = ImageForm(size=16, resize="squash", quality=0)


@pytest.fixture(scope="module")
def models(kept):
    return load_shown_models([kept / "rkd_adv"])


@pytest.fixture(scope="module")
def dataset(kept, data_directory):
    data = parse_recorded_data(read_run_config(kept / "rkd_adv"))
    return open_data(dataclasses.replace(data, directory=data_directory))


def test_teacher_and_both_students_answer_as_their_evaluation_did(kept, models, dataset):
    assert [model.title for model in models] == ["teacher", "student, not debiased", "student, debiased"]
    assert [model.is_debiased for model in models] == [False, False, True]
    folder = kept / "rkd_adv"
    images = dataset.split("test").read_images(np.arange(3))
    with np.load(folder / "predictions" / "test.npz") as own:
        for model, name in zip(models, ("teacher", None, "student"), strict=True):
            if name:
                found = np.stack([model.answer(image)[0] for image in images])
                np.testing.assert_allclose(found, own[f"{name}_probabilities"][:3], atol=2e-4)
    stored = jax.tree.leaves(models[0].predictor.model.variables["params"])
    assert models[0].megabytes == pytest.approx(sum(array.nbytes for array in stored) / 1e6)


def test_a_batch_of_another_size_answers_the_same(models, dataset):
    predictor = models[2].predictor
    images = dataset.split("test").read_images(np.arange(5))
    joined = type(predictor)(predictor.model, batch_size=4).predict(images)
    alone = np.concatenate([predictor.predict(image[None]).probabilities for image in images])
    assert joined.maps.shape[0] == 5
    np.testing.assert_allclose(joined.probabilities, alone, atol=1e-5)


def test_a_run_without_its_teacher_is_shown_alone(kept, tmp_path):
    shutil.copytree(kept / "rkd_adv" / "baseline", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["teacher"]["checkpoint"] = str(tmp_path / "gone")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (model,) = load_shown_models([tmp_path / "run"])
    assert model.title == "student, not debiased"
    # A run of the same kind in another folder gets the folder's name, and its teacher is shown after all.
    found = load_shown_models([tmp_path / "run", kept / "rkd_adv" / "baseline"])
    assert [model.title.partition(",")[0] for model in found] == ["teacher", "student", "student"]
    assert found[1].title.endswith(str(tmp_path / "run"))


class Images:
    """A test split of 60 images; the grey of each is its row."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels, self.groups = rng.integers(0, 3, 60), rng.integers(-1, 2, 60)

    def __len__(self):
        return len(self.labels)

    def read_images(self, rows):
        return np.repeat(rows.astype(np.uint8), 16 * 16 * 3).reshape(-1, 16, 16, 3)


def make_examples():
    rng = np.random.default_rng(1)
    is_right = {name: rng.random(60) < 0.5 for name in ("before", "after")}
    return Examples(Images(), ("a", "<b>", "c"), ("g", "h"), is_right)


@pytest.mark.parametrize("label", [None, "<b>"])
@pytest.mark.parametrize("group", [None, "h"])
@pytest.mark.parametrize("change", [None, "mended by debiasing", "broken by debiasing"])
def test_examples_are_those_that_were_asked_for(label, group, change):
    examples = make_examples()
    expected = []
    for row in range(60):
        fits = label is None or examples.split.labels[row] == 1
        fits &= group is None or examples.split.groups[row] == 1
        before, after = (examples.is_right[name][row] for name in ("before", "after"))
        if change:
            fits &= bool(not before and after) if change.startswith("mended") else bool(before and not after)
        if fits:
            expected.append(row)
    assert examples.find(label, group, change).tolist() == expected
    assert len(expected) > 0


class Fixed:
    """A model whose answer is always the same."""

    title, method, architecture, parameters, megabytes = "student", "<script>CE", "toy", 1000, 0.004

    def answer(self, pixels):
        assert pixels.shape == (16, 16, 3)
        return np.float32([0.5, 0.25, 0.25]), 1.5


def test_pages_of_examples_and_their_answers():
    page = DemoPage("digits", [Fixed()], ["a", "<b>", "a"], FORM, make_examples())
    pictures, rows, sentence = page.list_examples("all", "all", "all", 2)
    assert rows == list(range(12, 24))
    assert [int(image[0, 0, 0]) for image, _ in pictures] == rows
    assert sentence == "60 test images; page 2 of 5."
    assert page.list_examples("all", "all", "all", 99)[1] == list(range(48, 60))
    assert page.list_examples("all", "all", "all", 0)[1] == list(range(12))
    image, truth, bars, facts = page.answer_example(7)
    data = base64.b64decode(image.partition("base64,")[2].partition('"')[0])
    assert np.all(np.asarray(Image.open(io.BytesIO(data))) == 7)
    assert truth == page.examples.describe(7)
    # Two classes of one name stay apart, and what a run has named is no markup.
    assert bars == {"a (1)": 0.5, "<b>": 0.25, "a (3)": 0.25}
    assert "<script>" not in facts
    assert "1.5 ms" in facts


def test_what_debiasing_changed_needs_one_evaluated_student_of_each_kind(models, dataset, kept):
    found = collect_examples(dataset, models)
    with np.load(kept / "rkd_adv" / "predictions" / "test.npz") as own:
        expected = own["student_prediction"] == own["label"]
    is_evaluated = (kept / "rkd_adv" / "baseline" / "predictions" / "test.npz").exists()
    assert bool(found.is_right) == is_evaluated
    if is_evaluated:
        np.testing.assert_array_equal(found.is_right["after"], expected)
    assert collect_examples(dataset, models[:2]).changes == []
    moved = [dataclasses.replace(model, folder=kept / "elsewhere") for model in models]
    assert collect_examples(dataset, moved).changes == []


def write_image(path, image, **options):
    image.save(path, **options)
    return path


def test_an_upload_is_what_preparation_would_store(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(read_upload(write_image(tmp_path / "a.png", image), FORM), pixels)
    # On its side, with the tag that says so.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(
        read_upload(write_image(tmp_path / "b.png", turned, exif=exif), FORM), pixels
    )


def make_bomb():
    """A picture of 400 million pixels in a file of some kilobytes: only its header says so."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (make_bomb(), "damaged or too large"),
        (b"\0" * (MAX_UPLOAD_BYTES + 1), "make the image smaller"),
    ],
    ids=["empty", "text", "svg", "bomb", "large"],
)
def test_an_upload_that_is_no_image_is_one_line(tmp_path, data, reason):
    path = tmp_path / "upload.png"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=reason):
        read_upload(path, FORM)


def test_a_truncated_image_and_no_image_are_one_line(tmp_path):
    path = write_image(tmp_path / "a.jpg", Image.effect_noise((64, 64), 50))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UsageError, match="damaged"):
        read_upload(path, FORM)
    page = DemoPage("digits", [], [], FORM, None)
    with pytest.raises(UsageError, match="no image yet"):
        page.answer_upload(None)


def test_the_command_names_its_extra_and_refuses_what_is_no_port(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the extra `demo`" in line
    with pytest.raises(SystemExit):
        demo.main([str(tmp_path), "--port", "70000"])
    capsys.readouterr()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert demo.main([str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be used" in line
