"""Readers of the image files in a folder or an archive; nothing is extracted to disk."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from fairkd_jax.data.archives import DAMAGE, Member, iterate_members
from fairkd_jax.data.file_hashes import hash_files
from fairkd_jax.data.images import PIXELS_REVISION
from fairkd_jax.data.preparation_plan import DIGEST_LENGTH, escape_unprintable, hash_parts
from fairkd_jax.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_EDGE_BYTES = 2**16


@dataclass(frozen=True)
class RawFile:
    """An image file before decoding.

    Attributes:
      name: File name without folders, or the full name in the archive.
      stamp: SHA-256 of the file; "" for a file that cannot be read or is too large.
      size: Size in bytes.
      load: Function that returns the bytes of the file.
    """

    name: str
    stamp: str
    size: int
    load: Callable[[], bytes]

    def find_problem(self, max_bytes: int) -> str:
        """Returns the reason why the file must be skipped, or "" for a usable file.

        Args:
          max_bytes: Largest size of a file.
        """
        if self.size > max_bytes:
            size, limit = (f"{number / 2**20:.3g}" for number in (self.size, max_bytes))
            return f"the file has {size} MiB, more than data.max_file_mib={limit}"
        return "the file is empty" if self.size == 0 else ""


def is_image_name(name: str) -> bool:
    """Returns whether a file name has the suffix of an image and is not hidden.

    Args:
      name: File name without folders.
    """
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def make_earlier_stamp(status: os.stat_result) -> str:
    """Returns size and time of the last change of a file, by which earlier versions knew its content."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def list_folder(folder: Path) -> list[RawFile]:
    """Lists the images in a folder and its subfolders, sorted by path.

    Args:
      folder: Folder that is searched.

    Raises:
      UsageError: The folder holds no image.
    """
    paths = _list_paths(folder)
    return [
        RawFile(path.name, digest, path.stat().st_size, path.read_bytes)
        for path, digest in zip(paths, hash_files(paths, folder), strict=True)
    ]


def _list_paths(folder: Path) -> list[Path]:
    """Lists the paths of the images in a folder and its subfolders."""
    paths = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        paths += [Path(parent, name) for name in sorted(filter(is_image_name, names))]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise UsageError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} file; check the path of the source")
    return paths


def read_archive(path: Path, *, max_bytes: int, base_names: bool = True) -> Iterator[RawFile]:
    """Reads the images of a zip archive, or of a tar archive (plain, gz, bz2 or xz), one after the other.

    The function writes nothing to disk, so the names in the archive cannot overwrite files. The bytes of a
    file stay in memory as long as its `RawFile` exists.

    Args:
      path: Path of the archive.
      max_bytes: Largest size of a file that is read; larger ones have no bytes.
      base_names: Whether a name in the result is the last part of the name in the archive.

    Yields:
      The images in the order of the archive.

    Raises:
      UsageError: The file is no tar or zip archive, is damaged or is cut short, or is larger than
        `iterate_members` allows.
    """
    try:
        for member in iterate_members(path):
            name = PurePosixPath(member.name).name
            if is_image_name(name):
                yield _read_member(member, name if base_names else member.name, max_bytes)
    except UsageError:
        raise
    except DAMAGE as error:
        reason = escape_unprintable(str(error).partition("\n")[0] or type(error).__name__)
        raise UsageError(
            f"{path} is no tar or zip archive, is damaged or is cut short ({reason}); download the file again"
        ) from error


def _read_member(member: Member, name: str, max_bytes: int) -> RawFile:
    if member.size > max_bytes:
        return RawFile(name, "", member.size, bytes)
    data = member.load()
    return RawFile(name, hashlib.sha256(data).hexdigest(), member.size, partial(bytes, data))


def compute_source_digest(path: Path) -> str:
    """Computes a short digest of the content of a folder of images or an archive.

    The content is read once for each path, size and time of the last change; see `hash_files`.

    Args:
      path: Path of a folder or a file. For a folder, the digest covers the names and the images.

    Raises:
      UsageError: The folder holds no image.
    """
    if path.is_dir():
        parts = [part for file in list_folder(path) for part in (file.name, file.stamp)]
    else:
        parts = hash_files([path], path)
    return digest_source(parts)


def digest_source(parts: Iterable[str]) -> str:
    """Returns the digest of a source from the hashes of its files, and of the rules that make them pixels."""
    return hash_parts([str(PIXELS_REVISION), *parts], DIGEST_LENGTH)


def compute_earlier_digest(path: Path) -> str:
    """Computes the digest of earlier versions, without reading all of the content.

    Args:
      path: Path of a folder or a file. For a folder, the digest covers the names, sizes and times of the
        images. For a file, the digest covers the size and the first and last 64 KiB.

    Raises:
      UsageError: The folder holds no image.
    """
    if path.is_dir():
        return hash_parts(f"{found.name}:{make_earlier_stamp(found.stat())}" for found in _list_paths(path))
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size - _EDGE_BYTES))
        return hash_parts([str(size), head, stream.read(_EDGE_BYTES)])
