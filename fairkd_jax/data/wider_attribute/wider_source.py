"""The source of WIDER Attribute: the published folder, or the two published archives."""

import errno
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fairkd_jax.data.file_hashes import hash_files
from fairkd_jax.data.preparation_plan import hash_parts
from fairkd_jax.data.raw_files import (
    RawFile,
    compute_earlier_digest,
    compute_source_digest,
    digest_source,
    make_earlier_stamp,
    read_archive,
)
from fairkd_jax.data.wider_attribute.annotation import FILES, Record, parse_annotation
from fairkd_jax.errors import UsageError

IMAGE_ARCHIVE = "wider_attribute_image.tgz"
ANNOTATION_ARCHIVE = "wider_attribute_annotation.zip"
_MAX_ANNOTATION_BYTES = 256 * 2**20


@dataclass(frozen=True)
class WiderSource:
    """Paths of the two parts of WIDER Attribute.

    Attributes:
      annotation: Path of the folder `Annotations`, or of its archive.
      images: Path of the folder `Image`, or of its archive.
    """

    annotation: Path
    images: Path

    def compute_digest(self, records: list[Record]) -> str:
        """Computes a digest of the annotation and the content of the images, which are read once.

        Args:
          records: All annotated images.
        """
        parts = [repr(record) for record in records]
        if self.images.is_dir():
            return digest_source([*parts, *self._hash_images(records)])
        return digest_source([*parts, compute_source_digest(self.images)])

    def _hash_images(self, records: list[Record]) -> list[str]:
        """Returns the SHA-256 of each record's image in the folder; "" for an absent image."""
        return hash_files([self.images / record.file_name for record in records], self.images)

    def compute_earlier_digest(self, records: list[Record]) -> str:
        """Computes the digest of earlier versions, without reading all images.

        Args:
          records: All annotated images.
        """
        parts = [repr(record) for record in records]
        if self.images.is_dir():
            found = (_read_status(self.images / record.file_name) for record in records)
            parts += [make_earlier_stamp(status) if status else "" for status in found]
        else:
            parts.append(compute_earlier_digest(self.images))
        return hash_parts(parts)

    def read_records(self) -> list[Record]:
        """Reads the records of all annotated images, with the images of trainval first.

        Returns:
          The records. An image that is listed twice has one record.

        Raises:
          UsageError: The annotation is absent, damaged, or not the annotation of WIDER Attribute.
        """
        found: dict[str, Record] = {}
        for name, content in self._read_annotations():
            for record in parse_annotation(name, content):
                found.setdefault(record.file_name, record)
        return list(found.values())

    def _read_annotations(self) -> Iterator[tuple[str, bytes]]:
        if self.annotation.is_dir():
            paths = [path for path in (self.annotation / name for name in FILES) if path.is_file()]
            if not paths:
                raise UsageError(
                    f"{self.annotation} holds none of {' and '.join(FILES)}; use the published files"
                )
            yield from ((str(path), path.read_bytes()) for path in paths)
            return
        try:
            with zipfile.ZipFile(self.annotation) as archive:
                members = {PurePosixPath(info.filename).name: info for info in archive.infolist()}
                for info in archive.infolist():
                    check_member_name(self.annotation, info.filename)
                present = [members[name] for name in FILES if name in members]
                if not present:
                    raise UsageError(
                        f"{self.annotation} holds none of {' and '.join(FILES)}; use the published files"
                    )
                for info in present:
                    if info.file_size > _MAX_ANNOTATION_BYTES:
                        raise UsageError(
                            f"{self.annotation}: {info.filename} unpacks to {info.file_size} bytes,"
                            f" more than {_MAX_ANNOTATION_BYTES}; download the file again"
                        )
                    yield f"{self.annotation}/{info.filename}", archive.read(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise UsageError(
                f"{self.annotation} is damaged or not a zip archive; download the file again"
            ) from error

    def iterate_files(self, records: list[Record], max_bytes: int) -> Iterator[tuple[Record, RawFile | None]]:
        """Yields each record with its image file.

        The images of an archive have the order of the archive. The function writes nothing to disk.

        Args:
          records: All annotated images.
          max_bytes: Largest size of a file that is read.

        Yields:
          A record and its file; None for an absent file.

        Raises:
          UsageError: The archive is damaged, or a name in the archive points outside.
        """
        if self.images.is_dir():
            for record, digest in zip(records, self._hash_images(records), strict=True):
                path = self.images / record.file_name
                status = None if record.problem else _read_status(path)
                if status is None:
                    yield record, None
                    continue
                yield record, RawFile(record.file_name, digest, status.st_size, path.read_bytes)
            return
        waiting = {record.file_name: record for record in records}
        for file in read_archive(self.images, max_bytes=max_bytes, base_names=False):
            check_member_name(self.images, file.name)
            known = waiting.pop("/".join(PurePosixPath(file.name).parts[-3:]), None)
            if known is not None:
                yield known, file
        yield from ((record, None) for record in waiting.values())


def _read_status(path: Path) -> os.stat_result | None:
    """Returns the status of a regular file; None if the file does not exist or the name is not valid."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return None
        raise
    return status if stat.S_ISREG(status.st_mode) else None


def check_member_name(archive: Path, name: str) -> None:
    """Checks that a name in an archive does not point outside the archive.

    Args:
      archive: Path of the archive, for the error message.
      name: Name of the member.

    Raises:
      UsageError: The name is absolute or contains "..".
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"{archive} has a member whose name points outside: {name!r}; use the published archive"
        )


def find_source(source: Path) -> WiderSource | None:
    """Finds the annotation and the images in a folder, each unpacked or as the published archive.

    Args:
      source: Folder `WIDER`, its parent, or the folder of the archives.

    Returns:
      The source. None: one of the two parts is absent.
    """
    for root in (source, source / "WIDER"):
        annotation = _choose_existing(root / "Annotations", source / ANNOTATION_ARCHIVE)
        images = _choose_existing(root / "Image", source / IMAGE_ARCHIVE)
        if annotation is not None and images is not None:
            return WiderSource(annotation, images)
    return None


def _choose_existing(folder: Path, archive: Path) -> Path | None:
    if folder.is_dir():
        return folder
    return archive if archive.is_file() else None
