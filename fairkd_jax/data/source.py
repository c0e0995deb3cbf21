"""Lists and reads the files of a folder or of a tar archive; nothing is ever extracted to disk."""

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from fairkd_jax.data.plan import digest, printable
from fairkd_jax.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_FILE_BYTES = 32 * 2**20
MAX_ARCHIVE_BYTES = 64 * 2**30
_EDGE_BYTES = 2**16


@dataclass(frozen=True)
class RawFile:
    """An image file, not yet decoded.

    Attributes:
      name: the base name, or the whole name in its archive.
      stamp: changes when the file does.
      size: bytes.
      load: returns the bytes.
    """

    name: str
    stamp: str
    size: int
    load: Callable[[], bytes]

    @property
    def problem(self) -> str:
        """Why the file is not to be read, or ""."""
        if self.size > MAX_FILE_BYTES:
            return f"the file has {self.size} bytes, more than {MAX_FILE_BYTES}"
        return "the file is empty" if self.size == 0 else ""


def is_image_name(name: str) -> bool:
    """Says whether a base name looks like an image (and is no hidden file)."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def stamp_of(status: os.stat_result) -> str:
    """Returns size and time of the last change of a file as one text."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def folder_files(folder: Path) -> list[RawFile]:
    """Lists the images in a folder and the folders in it, sorted by path.

    Raises:
      UsageError: the folder holds no image.
    """
    files = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(filter(is_image_name, names)):
            path = Path(parent, name)
            if path.is_file():
                status = path.stat()
                files.append(RawFile(name, stamp_of(status), status.st_size, path.read_bytes))
    if not files:
        raise UsageError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} file; check the path of the source")
    return files


def archive_files(path: Path, *, base_names: bool = True) -> Iterator[RawFile]:
    """Reads the images of a tar archive (plain, gz, bz2 or xz) one after the other.

    Nothing is written to disk, so no name can do harm. The bytes of a member stay in memory for as long as
    its `RawFile` lives.

    Args:
      path: of the archive.
      base_names: whether a file is called by the last part of its name alone.

    Raises:
      UsageError: the archive is no tar archive, is damaged or cut short, or unpacks to more than
        MAX_ARCHIVE_BYTES.
    """
    total = 0
    try:
        with tarfile.open(path, mode="r:*") as archive:
            for member in archive:
                total += member.size
                if total > MAX_ARCHIVE_BYTES:
                    raise UsageError(
                        f"{path} unpacks to more than {MAX_ARCHIVE_BYTES} bytes; is it the published archive?"
                    )
                name = PurePosixPath(member.name).name
                if member.isreg() and is_image_name(name):
                    yield _member_file(archive, member, name if base_names else member.name)
            _check_end(archive)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        reason = printable(str(error).partition("\n")[0] or type(error).__name__)
        raise UsageError(
            f"{path} is not a tar archive, is damaged or is cut short ({reason}); download it again"
        ) from error


def _member_file(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> RawFile:
    data = b""
    if member.size <= MAX_FILE_BYTES:
        stream = archive.extractfile(member)
        data = stream.read() if stream else b""
    return RawFile(name, f"{member.size}:{member.mtime}", member.size, partial(bytes, data))


def _check_end(archive: tarfile.TarFile) -> None:
    """Reads to the end of the file: tarfile takes a broken header for the end, and a checksum comes last."""
    length, stream = 0, archive.fileobj
    while stream is not None and (block := stream.read(2**20)):
        length += len(block)
        if block.strip(b"\0"):
            raise tarfile.ReadError("a header in the middle is broken")
    if length < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end mark is absent")


def source_identity(path: Path) -> str:
    """Returns a short digest that changes with the content of a folder or an archive, read in passing only.

    Args:
      path: a folder (names, sizes and times of its images count) or a file (size, first and last 64 KiB).
    """
    if path.is_dir():
        return digest(f"{file.name}:{file.stamp}" for file in folder_files(path))
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size - _EDGE_BYTES))
        return digest([str(size), head, stream.read(_EDGE_BYTES)])
