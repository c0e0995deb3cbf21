"""Archives as sources: zip as tar, within limits that no header can lift."""

import io
import re
import stat
import tarfile
import time
import zipfile

import numpy as np
import pytest

from fairkd_jax.data import archives
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.data.raw_files import read_archive
from fairkd_jax.errors import UsageError


def zipped(path, contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_utkface_in_a_zip_is_that_of_the_folder(faces, tmp_path):
    folder = faces(20)
    contents = {f"UTKFace/{path.name}": path.read_bytes() for path in folder.iterdir()}
    contents |= {"UTKFace/": b"", f"__MACOSX/UTKFace/._{next(folder.iterdir()).name}": b"Mac OS X"}
    source = zipped(tmp_path / "UTKFace.zip", contents)
    found, expected = (
        open_dataset("utkface", directory=tmp_path / place, source=str(given), size=8).split("train")
        for place, given in (("zip", source), ("folder", folder))
    )
    assert list(found.ids) == list(expected.ids)
    assert found.compute_digest() == expected.compute_digest()
    np.testing.assert_array_equal(found.read_images(), expected.read_images())


def test_names_and_sizes_in_a_zip_are_checked(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../etc/a.jpg", b"abc")
        archive.writestr("large.jpg", b"0" * 101)
        archive.writestr("note.txt", b"")
        archive.writestr(link, b"/etc/passwd")
    small, large = read_archive(path, max_bytes=100)
    assert (small.name, small.load()) == ("a.jpg", b"abc")  # a name alone: nothing is unpacked
    assert (large.name, large.size, large.load()) == ("large.jpg", 101, b"")


def with_false_size(path):
    """A file that unpacks to more than its size says."""
    zipped(path, {"a.jpg": bytes(100_000)})
    data = bytearray(path.read_bytes())
    for place in (data.index(b"PK\3\4") + 22, data.index(b"PK\1\2") + 24):
        data[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)


def with_huge_directory(path):
    zipped(path, {"a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\5\6") + 12
    data[place : place + 4] = (2**30).to_bytes(4, "little")
    path.write_bytes(data)


def encrypted(path):
    zipped(path, {"a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    for place in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        data[place] |= 1
    path.write_bytes(data)


def with_huge_name(path, kind=tarfile.XHDTYPE):
    """A header that announces a name of 2 GB, in a file with a hole."""
    header = tarfile.TarInfo("name")
    header.type, header.size = kind, 2 * 2**30
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2 * 2**30 + 1024)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: zipped(path, {"a.jpg": bytes(300_000)}), "unpacks to more than 100000 bytes"),
        (lambda path: zipped(path, {f"{i}.txt": b"" for i in range(60)}), "more than 50 entries"),
        (lambda path: zipped(path, {"a.jpg": b"a"}).write_bytes(path.read_bytes()[:-9]), "directory at its"),
        (lambda path: path.write_bytes(b"PK\3\4"), "the directory at its end is missing"),
        (with_false_size, "Bad CRC-32"),
        (with_huge_directory, "a directory of 1073741824 bytes"),
        (encrypted, "encrypted"),
        (with_huge_name, "a header of 2147483648 bytes"),
        (lambda path: with_huge_name(path, tarfile.GNUTYPE_LONGNAME), "a header of 2147483648 bytes"),
        (lambda path: path.write_bytes(b""), "no tar or zip archive"),
    ],
)
def test_an_archive_of_tricks_is_refused_at_once(tmp_path, monkeypatch, make, reason):
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 100_000)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    make(tmp_path / "a.zip")
    start = time.process_time()
    with pytest.raises(UsageError, match=re.escape(reason)) as refused:
        list(read_archive(tmp_path / "a.zip", max_bytes=2**20))
    assert "\n" not in str(refused.value)
    assert time.process_time() - start < 1.0


def test_a_tar_of_headers_alone_keeps_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3000)
    path = tmp_path / "a.tar"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    path.write_bytes(buffer.getvalue()[:512] * 4000)
    kept = []
    clear = tarfile.TarFile.next

    def count(self):
        kept.append(len(self.members))
        return clear(self)

    monkeypatch.setattr(tarfile.TarFile, "next", count)
    with pytest.raises(UsageError, match="more than 3000 entries"):
        list(read_archive(path, max_bytes=2**20))
    assert max(kept) <= 1
