"""Finds annotation and images of WIDER Attribute: the published folder, or the two published archives."""

import errno
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fairkd_jax.data.plan import digest
from fairkd_jax.data.source import RawFile, archive_files, source_identity, stamp_of
from fairkd_jax.data.wider_attribute.annotation import FILES, Record, parse
from fairkd_jax.errors import UsageError

IMAGE_ARCHIVE = "wider_attribute_image.tgz"
ANNOTATION_ARCHIVE = "wider_attribute_annotation.zip"
_MAX_ANNOTATION_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Source:
    """Where the two parts lie.

    Attributes:
      annotation: the folder `Annotations`, or the archive of it.
      images: the folder `Image`, or the archive of it.
    """

    annotation: Path
    images: Path

    def identity(self, records: list[Record]) -> str:
        """A digest that changes with the annotation or the images, which are read in passing only."""
        parts = [repr(record) for record in records]
        if self.images.is_dir():
            found = (_status(self.images / record.file_name) for record in records)
            parts += [stamp_of(status) if status else "" for status in found]
        else:
            parts.append(source_identity(self.images))
        return digest(parts)

    def records(self) -> list[Record]:
        """All annotated images, those of trainval first; an image that is listed twice counts once.

        Raises:
          UsageError: the annotation is absent, damaged or another one.
        """
        found: dict[str, Record] = {}
        for name, content in self._annotations():
            for record in parse(name, content):
                found.setdefault(record.file_name, record)
        return list(found.values())

    def _annotations(self) -> Iterator[tuple[str, bytes]]:
        if self.annotation.is_dir():
            paths = [path for path in (self.annotation / name for name in FILES) if path.is_file()]
            if not paths:
                raise UsageError(f"{self.annotation} holds none of {' and '.join(FILES)}")
            yield from ((str(path), path.read_bytes()) for path in paths)
            return
        try:
            with zipfile.ZipFile(self.annotation) as archive:
                members = {PurePosixPath(info.filename).name: info for info in archive.infolist()}
                for info in archive.infolist():
                    check_inside(self.annotation, info.filename)
                present = [members[name] for name in FILES if name in members]
                if not present:
                    raise UsageError(f"{self.annotation} holds none of {' and '.join(FILES)}")
                for info in present:
                    if info.file_size > _MAX_ANNOTATION_BYTES:
                        raise UsageError(
                            f"{self.annotation}: {info.filename} unpacks to {info.file_size} bytes"
                        )
                    yield f"{self.annotation}/{info.filename}", archive.read(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise UsageError(f"{self.annotation} is damaged or no zip archive; download it again") from error

    def files(self, records: list[Record]) -> Iterator[tuple[Record, RawFile | None]]:
        """Each record and its image file; None where that is absent.

        The images of an archive come in its order, and are never unpacked to disk.

        Raises:
          UsageError: the archive is damaged, or a member's name points outside.
        """
        if self.images.is_dir():
            for record in records:
                path = self.images / record.file_name
                status = None if record.problem else _status(path)
                if status is None:
                    yield record, None
                    continue
                yield record, RawFile(record.file_name, stamp_of(status), status.st_size, path.read_bytes)
            return
        waiting = {record.file_name: record for record in records}
        for file in archive_files(self.images, base_names=False):
            check_inside(self.images, file.name)
            known = waiting.pop("/".join(PurePosixPath(file.name).parts[-3:]), None)
            if known is not None:
                yield known, file
        yield from ((record, None) for record in waiting.values())


def _status(path: Path) -> os.stat_result | None:
    """Of a file; None where there is none, or can be none of such a name."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return None
        raise
    return status if stat.S_ISREG(status.st_mode) else None


def check_inside(archive: Path, name: str) -> None:
    """Checks that the name of a member stays within the archive.

    Raises:
      UsageError: it is absolute, or climbs out.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"{archive} has a member whose name points outside: {name!r}; is it the published one?"
        )


def find(source: Path) -> Source | None:
    """Finds the two parts in a folder: unpacked, as published, or one of each; None where one is absent."""
    for root in (source, source / "WIDER"):
        annotation = _first(root / "Annotations", source / ANNOTATION_ARCHIVE)
        images = _first(root / "Image", source / IMAGE_ARCHIVE)
        if annotation is not None and images is not None:
            return Source(annotation, images)
    return None


def _first(folder: Path, archive: Path) -> Path | None:
    if folder.is_dir():
        return folder
    return archive if archive.is_file() else None
