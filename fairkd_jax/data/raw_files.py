"""Readers of the image files in a folder or a tar archive; nothing is extracted to disk."""

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from fairkd_jax.data.preparation_plan import escape_unprintable, hash_parts
from fairkd_jax.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_FILE_BYTES = 32 * 2**20
MAX_ARCHIVE_BYTES = 64 * 2**30
_EDGE_BYTES = 2**16


@dataclass(frozen=True)
class RawFile:
    """An image file before decoding.

    Attributes:
      name: File name without folders, or the full name in the archive.
      stamp: Text that changes when the file changes.
      size: Size in bytes.
      load: Function that returns the bytes of the file.
    """

    name: str
    stamp: str
    size: int
    load: Callable[[], bytes]

    @property
    def problem(self) -> str:
        """Reason why the file must be skipped, or "" for a usable file."""
        if self.size > MAX_FILE_BYTES:
            return f"the file has {self.size} bytes, more than {MAX_FILE_BYTES}"
        return "the file is empty" if self.size == 0 else ""


def is_image_name(name: str) -> bool:
    """Returns whether a file name has the suffix of an image and is not hidden.

    Args:
      name: File name without folders.
    """
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def make_stamp(status: os.stat_result) -> str:
    """Returns the size and the time of the last change of a file as one text."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def list_folder(folder: Path) -> list[RawFile]:
    """Lists the images in a folder and its subfolders, sorted by path.

    Args:
      folder: Folder that is searched.

    Raises:
      UsageError: The folder holds no image.
    """
    files = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(filter(is_image_name, names)):
            path = Path(parent, name)
            if path.is_file():
                status = path.stat()
                files.append(RawFile(name, make_stamp(status), status.st_size, path.read_bytes))
    if not files:
        raise UsageError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} file; check the path of the source")
    return files


def read_archive(path: Path, *, base_names: bool = True) -> Iterator[RawFile]:
    """Reads the images of a tar archive (plain, gz, bz2 or xz) one after the other.

    The function writes nothing to disk, so the names in the archive cannot overwrite files. The bytes of a
    file stay in memory as long as its `RawFile` exists.

    Args:
      path: Path of the archive.
      base_names: Whether a name in the result is the last part of the name in the archive.

    Yields:
      The images in the order of the archive.

    Raises:
      UsageError: The file is not a tar archive, is damaged or is cut short, or unpacks to more than
        MAX_ARCHIVE_BYTES.
    """
    total = 0
    try:
        with tarfile.open(path, mode="r:*") as archive:
            for member in archive:
                total += member.size
                if total > MAX_ARCHIVE_BYTES:
                    raise UsageError(
                        f"{path} unpacks to more than {MAX_ARCHIVE_BYTES} bytes; use the published archive"
                    )
                name = PurePosixPath(member.name).name
                if member.isreg() and is_image_name(name):
                    yield _member_file(archive, member, name if base_names else member.name)
            _check_end(archive)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        reason = escape_unprintable(str(error).partition("\n")[0] or type(error).__name__)
        raise UsageError(
            f"{path} is not a tar archive, is damaged or is cut short ({reason}); download the file again"
        ) from error


def _member_file(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> RawFile:
    data = b""
    if member.size <= MAX_FILE_BYTES:
        stream = archive.extractfile(member)
        data = stream.read() if stream else b""
    return RawFile(name, f"{member.size}:{member.mtime}", member.size, partial(bytes, data))


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


def compute_source_digest(path: Path) -> str:
    """Computes a short digest that changes with a folder or an archive, without reading all of the content.

    Args:
      path: Path of a folder or a file. For a folder, the digest covers the names, sizes and times of the
        images. For a file, the digest covers the size and the first and last 64 KiB.

    Raises:
      UsageError: The folder holds no image.
    """
    if path.is_dir():
        return hash_parts(f"{file.name}:{file.stamp}" for file in list_folder(path))
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size - _EDGE_BYTES))
        return hash_parts([str(size), head, stream.read(_EDGE_BYTES)])
