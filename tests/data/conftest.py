"""Tiny images and data sets that the tests of the data package share."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.data import staging
from fairkd_jax.data.pipeline import open_dataset


@pytest.fixture(scope="session")
def picture():
    """Returns a function (seed, width, height) -> uint8 [height, width, 3]: smooth, so that JPEG keeps it."""

    def make(seed, width=20, height=20):
        coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture(scope="session")
def encoded(picture):
    """Returns a function (seed, width, height, format) -> the bytes of an image file."""

    def make(seed, width=20, height=20, format="JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(picture(seed, width, height)).save(buffer, format)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def face_names():
    """Returns a function (count) -> well-formed UTKFace names."""

    def make(count):
        return [f"{7 * i % 90}_{i % 2}_{i % 5}_2017{i:013d}.jpg.chip.jpg" for i in range(count)]

    return make


@pytest.fixture
def faces(tmp_path, encoded, face_names):
    """Returns a function (count) -> a folder of that many faces."""

    def make(count=40, name="faces"):
        folder = tmp_path / name
        folder.mkdir()
        for seed, face in enumerate(face_names(count)):
            (folder / face).write_bytes(encoded(seed))
        return folder

    return make


@pytest.fixture
def write_manifest(tmp_path, encoded):
    """Returns a function (rows, name, header) -> a CSV manifest, and makes its images but for "absent"."""

    def make(rows, name="manifest.csv", header="path,label,group,split"):
        for seed, row in enumerate(rows):
            path = tmp_path / row.split(",")[0]
            if "absent" not in path.name and path != tmp_path:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(encoded(seed, format="PNG"))
        manifest = tmp_path / name
        manifest.write_text("\n".join([header, *rows]) + "\n")
        return manifest

    return make


@pytest.fixture
def decoded_counts(monkeypatch):
    """Counts decoded images; `stop_at` makes the decoding of that image raise KeyboardInterrupt."""

    class Counts:
        calls = 0
        stop_at = None

    original = staging.decode_image

    def counting(data, **form):
        Counts.calls += 1
        if Counts.calls == Counts.stop_at:
            raise KeyboardInterrupt
        return original(data, **form)

    monkeypatch.setattr(staging, "decode_image", counting)
    return Counts


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The digits at 8 px, decoded in memory."""
    return open_dataset("digits", directory=tmp_path_factory.mktemp("digits"), size=8, cache="host")


@pytest.fixture(scope="session")
def real_archive():
    """The published archive, where this machine has it."""
    path = Path(__file__).parents[2] / "../shared/data/UTKFace.tar.gz"
    if not path.exists():
        pytest.skip("no UTKFace.tar.gz here")
    return path
