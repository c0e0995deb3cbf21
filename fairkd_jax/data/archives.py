"""Members of tar and zip archives one after the other, within limits on their number and size."""

import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fairkd_jax.errors import UsageError

MAX_ARCHIVE_BYTES = 64 * 2**30
MAX_MEMBERS = 2_000_000
_MAX_HEADER_BYTES = 2**20  # of a header that holds a long name
_MAX_DIRECTORY_BYTES = 2**29  # of a zip archive
_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
# What the two libraries raise for damaged archives.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


class Member(NamedTuple):
    """A regular file in an archive.

    Attributes:
      name: Full name in the archive.
      size: Size in bytes, unpacked.
      load: Function that returns the bytes of the file; it must be called before the next member is read.
    """

    name: str
    size: int
    load: Callable[[], bytes]


def iterate_members(path: Path) -> Iterator[Member]:
    """Iterates over the regular files of a zip archive, or of a tar archive (plain, gz, bz2 or xz).

    Args:
      path: Path of the archive.

    Yields:
      The files in the order of the archive.

    Raises:
      UsageError: The archive has more than MAX_MEMBERS entries, or unpacks to more than MAX_ARCHIVE_BYTES.
      Exception: The archive is damaged; one of DAMAGE.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    total = 0
    for number, (size, member) in enumerate(_iterate_zip(path) if is_zip else _iterate_tar(path), 1):
        total += size
        if total > MAX_ARCHIVE_BYTES:
            raise UsageError(
                f"{path} unpacks to more than {MAX_ARCHIVE_BYTES} bytes; use the published archive"
            )
        if number > MAX_MEMBERS:
            raise UsageError(f"{path} has more than {MAX_MEMBERS} entries; use the published archive")
        if member is not None:
            yield member


class _BoundedHeader(tarfile.TarInfo):
    """A header whose long names have a bound: tarfile reads them into memory, whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedHeader":
        """Reads a header from its bytes."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise UsageError(f"the archive has a header of {header.size} bytes; use the published archive")
        return header


def _iterate_tar(path: Path) -> Iterator[tuple[int, Member | None]]:
    """Yields the size of each entry, and the entry where it is a regular file."""
    with tarfile.open(path, mode="r:*", tarinfo=_BoundedHeader) as archive:
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            yield entry.size, _make_tar_member(archive, entry) if entry.isreg() else None
        _check_end(archive)


def _make_tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    def load() -> bytes:
        stream = archive.extractfile(entry)
        return stream.read() if stream else b""

    return Member(entry.name, entry.size, load)


def _check_end(archive: tarfile.TarFile) -> None:
    """Checks the archive up to its end.

    tarfile mistakes a broken header for the end of the archive, and the checksum of a compressed file is at
    the end.
    """
    length, stream = 0, archive.fileobj
    while stream is not None and (block := stream.read(2**20)):
        length += len(block)
        if block.strip(b"\0"):
            raise tarfile.ReadError("a header in the middle is broken")
    if length < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end mark is missing")


def _iterate_zip(path: Path) -> Iterator[tuple[int, Member | None]]:
    """Yields the size of each entry, and the entry where it is a regular file."""
    _check_directory_size(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where another system than Unix has written it
            is_file = not entry.is_dir() and kind in (0, stat.S_IFREG)
            yield entry.file_size, _make_zip_member(archive, entry) if is_file else None


def _make_zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    # No more is unpacked than the directory says; a file that then goes on has a wrong checksum.
    return Member(entry.filename, entry.file_size, lambda: archive.read(entry))


def _check_directory_size(path: Path) -> None:
    """Checks the size of a zip archive's directory, which zipfile reads into memory whatever its size."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - 2**17))
        tail = file.read()
    end, long_end = tail.rfind(b"PK\5\6"), tail.rfind(b"PK\6\6")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("the directory at its end is missing")
    (size,) = struct.unpack_from("<L", tail, end + 12)
    if size == 2**32 - 1 and long_end >= 0:
        (size,) = struct.unpack_from("<Q", tail, long_end + 40)
    if size > _MAX_DIRECTORY_BYTES:
        raise UsageError(f"{path} has a directory of {size} bytes; use the published archive")
