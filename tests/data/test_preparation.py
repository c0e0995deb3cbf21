"""Folders and archives: bad files, resuming, what is kept and what is refused."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.data import archives, staging
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.errors import StorageError, UsageError


def pack(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def open_faces(source, directory, **options):
    return open_dataset("utkface", source=str(source), directory=directory, size=16, **options)


def splits_of(dataset):
    return {name: dataset.split(name) for name in dataset.info.num_examples}


def assert_same(one, other):
    assert one.info.num_examples == other.info.num_examples
    for name, split in splits_of(one).items():
        assert split.ids == other.split(name).ids
        np.testing.assert_array_equal(split.read_images(), other.split(name).read_images())


def skipped(dataset):
    with open(f"{dataset.info.directory}/preparation.json") as stream:
        return {item["name"]: item["reason"] for item in json.load(stream)["skipped"]}


def test_folder_and_archive_give_the_same(faces, tmp_path):
    folder = faces()
    files = [(f"../UTKFace/{path.name}", path.read_bytes()) for path in reversed(list(folder.iterdir()))]
    archive = pack(tmp_path / "faces.tar.gz", files)
    one, other = open_faces(folder, tmp_path / "a"), open_faces(archive, tmp_path / "b")
    assert_same(one, other)
    for split in splits_of(one).values():
        assert split.ids == sorted(split.ids)
    assert sum(one.info.num_examples.values()) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "faces", "faces.tar.gz"]


def test_bad_files_are_skipped_counted_and_named(faces, tmp_path, encoded, capsys):
    folder = faces()
    (folder / "20_1_20170109142408075.jpg").write_bytes(encoded(1))
    (folder / "21_0_0_1.jpg").write_bytes(encoded(1)[:200])
    (folder / "22_0_0_1.jpg").write_bytes(b"")
    (folder / "23_0_0_1.jpg").write_bytes(b"no image")
    (folder / "130_0_0_1.jpg").write_bytes(encoded(1))
    (folder / "24_0_0_\n1.jpg").write_bytes(encoded(1))
    (folder / "._25_0_0_1.jpg").write_bytes(b"what a Mac leaves")
    (folder / "readme.txt").write_text("no image either")
    dataset = open_faces(folder, tmp_path / "d", max_bad_fraction=0.2)
    assert skipped(dataset).keys() == {
        "20_1_20170109142408075.jpg",
        "21_0_0_1.jpg",
        "22_0_0_1.jpg",
        "23_0_0_1.jpg",
        "130_0_0_1.jpg",
        "24_0_0_\\n1.jpg",
    }
    assert sum(dataset.info.num_examples.values()) == 40
    assert "skipped 6: 130_0_0_1.jpg: the age 130 is above 116" in capsys.readouterr().err


def test_too_many_bad_files(faces, tmp_path):
    folder = faces(39)
    (folder / "21_0_0_1.jpg").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"1 of 40 files are bad, .*21_0_0_1.jpg: not an image") as error:
        open_faces(folder, tmp_path / "d", max_bad_fraction=0.024)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "d" / "utkface").exists()
    open_faces(folder, tmp_path / "d", max_bad_fraction=0.025)
    with pytest.raises(UsageError, match="1 of 40"):
        open_faces(folder, tmp_path / "d", max_bad_fraction=0.024)


def test_bombs_are_skipped(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    folder = faces(3)
    for name, side in (("20_0_0_1.jpg", 40), ("20_0_0_2.jpg", 100)):  # PIL warns of one, refuses the other
        Image.new("RGB", (side, side)).save(folder / name)
    (folder / "20_0_0_3.jpg").write_bytes(b"x" * 3 * 2**19)
    dataset = open_faces(folder, tmp_path / "d", max_bad_fraction=0.5, max_file_mib=1.0)
    reasons = skipped(dataset)
    assert "1600 pixels" in reasons["20_0_0_1.jpg"]
    assert "10000 pixels" in reasons["20_0_0_2.jpg"]
    assert reasons["20_0_0_3.jpg"] == "the file has 1.5 MiB, more than data.max_file_mib=1"
    larger = open_faces(folder, tmp_path / "d", max_bad_fraction=0.5)  # another folder, without this reason
    assert "not an image" in skipped(larger)["20_0_0_3.jpg"]
    with pytest.raises(UsageError, match="max_file_mib=0 is out of range"):
        open_faces(folder, tmp_path / "d", max_file_mib=0.0)


def test_a_name_that_occurs_twice(tmp_path, encoded):
    archive = pack(
        tmp_path / "a.tar", [(f"{part}/5_0_0_{i}.jpg", encoded(i)) for part in "ab" for i in range(9)], "w"
    )
    dataset = open_faces(archive, tmp_path / "d", max_bad_fraction=0.5)
    assert sum(dataset.info.num_examples.values()) == 9
    assert set(skipped(dataset).values()) == {"the name occurs twice"}


def truncated(data):
    return data[: len(data) // 2]


def without_tail(data):
    return data[:-1]


def flipped(data):
    return data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]


@pytest.mark.parametrize(
    "damage", [truncated, without_tail, flipped, lambda data: b"", lambda data: b"x" * 999]
)
def test_damaged_archive(tmp_path, encoded, damage):
    archive = pack(tmp_path / "a.tar.gz", [(f"5_0_0_{i}.jpg", encoded(i)) for i in range(9)])
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(UsageError, match="damaged or is cut short") as error:
        open_faces(archive, tmp_path / "d")
    assert "\n" not in str(error.value)


def test_broken_header_in_the_middle(tmp_path, encoded):
    archive = pack(tmp_path / "a.tar", [(f"5_0_0_{i}.jpg", encoded(i)) for i in range(3)], "w")
    data = bytearray(archive.read_bytes())
    data[data.index(b"5_0_0_1")] ^= 1
    archive.write_bytes(data)
    with pytest.raises(UsageError, match="header in the middle"):
        open_faces(archive, tmp_path / "d")


def test_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 10_000)
    archive = pack(tmp_path / "a.tar.gz", [("5_0_0_1.jpg", bytes(20_000))])
    with pytest.raises(UsageError, match="unpacks to more than 10000 bytes"):
        open_faces(archive, tmp_path / "d")


def test_killed_preparation_resumes(faces, tmp_path, monkeypatch, decoded_counts):
    monkeypatch.setattr(staging, "CHUNK_SIZE", 10)
    monkeypatch.setattr(staging.os, "cpu_count", lambda: 1)
    folder = faces()
    decoded_counts.stop_at = 25
    with pytest.raises(KeyboardInterrupt):
        open_faces(folder, tmp_path / "d")
    assert not (tmp_path / "d" / "utkface").exists()
    assert not list((tmp_path / "d").rglob("*.tmp"))
    decoded_counts.calls, decoded_counts.stop_at = 0, None
    resumed = open_faces(folder, tmp_path / "d")
    assert decoded_counts.calls == 20
    assert not list((tmp_path / "d" / ".staging").iterdir())
    assert_same(resumed, open_faces(folder, tmp_path / "e"))
    open_faces(folder, tmp_path / "d")
    assert decoded_counts.calls == 60


def test_bad_and_changed_and_broken_chunks_are_redone(faces, tmp_path, monkeypatch, decoded_counts, encoded):
    monkeypatch.setattr(staging, "CHUNK_SIZE", 10)
    folder = faces()
    names = sorted(path.name for path in folder.iterdir())
    good = (folder / names[35]).read_bytes()
    (folder / names[35]).write_bytes(b"bad")
    with pytest.raises(UsageError):
        open_faces(folder, tmp_path / "d")
    with pytest.raises(UsageError):
        open_faces(folder, tmp_path / "d")
    assert decoded_counts.calls == 40 + 10
    (folder / names[35]).write_bytes(good)
    (folder / names[0]).write_bytes(encoded(99))
    chunk = next((tmp_path / "d").rglob("000001-*.npz"))
    chunk.write_bytes(chunk.read_bytes()[:-30])
    decoded_counts.calls = 0
    dataset = open_faces(folder, tmp_path / "d")
    assert decoded_counts.calls == 30
    assert_same(dataset, open_faces(folder, tmp_path / "e"))


def test_killed_while_writing_leaves_nothing_final(faces, tmp_path, monkeypatch, decoded_counts):
    folder = faces()
    with monkeypatch.context() as patch:
        patch.setattr(staging.Chunk, "read_images", lambda chunk: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_faces(folder, tmp_path / "d")
    assert not (tmp_path / "d" / "utkface").exists()
    open_faces(folder, tmp_path / "d")
    assert decoded_counts.calls == 40


def test_source_is_not_needed_once_prepared(faces, tmp_path, encoded):
    folder = faces()
    prepared = open_faces(folder, tmp_path / "d")
    moved = folder.rename(tmp_path / "moved")
    assert open_faces("", tmp_path / "d").info == prepared.info
    assert open_faces(folder, tmp_path / "d").info == prepared.info
    with pytest.raises(UsageError, match=r"there is nothing at .*elsewhere; download UTKFace"):
        open_faces(tmp_path / "elsewhere", tmp_path / "d")
    (moved / "50_1_1_1.jpg").write_bytes(encoded(1))
    assert open_faces(moved, tmp_path / "d").info.directory != prepared.info.directory
    with pytest.raises(UsageError, match="several sources"):
        open_faces("", tmp_path / "d")


def test_nothing_to_train_on(tmp_path, encoded):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds no \.jpg"):
        open_faces(tmp_path / "empty", tmp_path / "d")
    archive = pack(tmp_path / "a.tar", [("readme.txt", b"nothing")], "w")
    with pytest.raises(UsageError, match="no usable image for train"):
        open_faces(archive, tmp_path / "d")


def test_another_process_was_faster(faces, tmp_path, monkeypatch):
    folder = faces()
    read = staging.Chunk.read_images

    def overtaken(chunk):
        monkeypatch.setattr(staging.Chunk, "read_images", read)
        open_faces(folder, tmp_path / "d")  # prepares all of it and removes the staged files
        return read(chunk)

    monkeypatch.setattr(staging.Chunk, "read_images", overtaken)
    dataset = open_faces(folder, tmp_path / "d")
    assert_same(dataset, open_faces(folder, tmp_path / "e"))
    assert not list((tmp_path / "d" / ".staging").iterdir())


def test_error_of_the_disk_is_not_hidden(faces, tmp_path, monkeypatch):
    def full(chunk):
        raise OSError("no space left")

    monkeypatch.setattr(staging.Chunk, "read_images", full)
    with pytest.raises(
        StorageError, match=r"cannot prepare utkface in .*: no space left; choose another folder"
    ):
        open_faces(faces(), tmp_path / "d")
