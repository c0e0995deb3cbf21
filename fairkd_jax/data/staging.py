"""Staging: decodes a source in chunks, one file per chunk, so that a stopped preparation can resume."""

import os
import uuid
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from fairkd_jax.data.images import PIXELS_REVISION, BadImageError, decode_image, encode_image
from fairkd_jax.data.preparation_plan import Example, SourceImage, escape_unprintable, hash_parts
from fairkd_jax.data.preparation_progress import PreparationProgress
from fairkd_jax.files import remove_file

CHUNK_SIZE = 64  # largest number of images that a stopped preparation loses
_REVISION = 3  # of the staged files


@dataclass(frozen=True)
class ImageFormat:
    """Size and encoding of the stored images.

    Attributes:
      size: Side of the square in pixels.
      resize: "squash" or "pad".
      quality: JPEG quality, 1 to 100; 0 = PNG.
    """

    size: int
    resize: str
    quality: int

    @property
    def key(self) -> str:
        """Text of all settings, which is part of the digest in a chunk's file name."""
        # The revisions change with staged files and with pixels: no chunk of an earlier version is used.
        form = f"size={self.size!r}, resize={self.resize!r}, quality={self.quality!r}"
        return f"{_REVISION}, {PIXELS_REVISION}, {form}"


@dataclass(frozen=True)
class Chunk:
    """A staged file and its examples.

    Attributes:
      path: Path of the file.
      examples: Example of each image in the file; None for a bad image.
    """

    path: Path
    examples: tuple[Example | None, ...]

    def read_images(self) -> list[bytes]:
        """Reads the encoded bytes of each image; empty for a bad image."""
        with np.load(self.path, allow_pickle=False) as arrays:
            data, ends = arrays["data"].tobytes(), arrays["ends"].tolist()
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class StagedImages:
    """Result of staging.

    Attributes:
      chunks: Staged files in the order of the source.
      skipped: Name and reason of each skipped file, in the order of the source.
      total: Number of files, including the skipped files.
      decoded: Number of images that this run decoded.
      reused: Number of images that an earlier run had staged.
    """

    chunks: list[Chunk] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    total: int = 0
    decoded: int = 0
    reused: int = 0

    @property
    def examples(self) -> list[Example]:
        """Examples of the usable images, in the order of the source."""
        return [example for chunk in self.chunks for example in chunk.examples if example is not None]


def stage_images(
    images: Iterable[SourceImage], folder: Path, *, image_format: ImageFormat, progress: PreparationProgress
) -> StagedImages:
    """Decodes all images of a source on all cores and writes the results into a folder.

    A chunk of an earlier run is reused if its source images have not changed and none of its images was bad.

    Args:
      images: Images of the source, in a fixed order.
      folder: Folder of the chunks, created if absent.
      image_format: Size and encoding of the stored images.
      progress: Reporter that is updated after each chunk.

    Returns:
      The chunks, the skipped files and their numbers.
    """
    result = StagedImages()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for number, chunk in enumerate(_split_into_chunks(images, result)):
                _stage_chunk(pool, chunk, number, folder, image_format, result)
                progress.update(result.total, len(result.skipped))
    finally:
        pool.shutdown(cancel_futures=True)
    return result


def _split_into_chunks(images: Iterable[SourceImage], result: StagedImages) -> Iterator[list[SourceImage]]:
    def iterate_usable() -> Iterator[SourceImage]:
        for image in images:
            result.total += 1
            if image.problem:
                result.skipped.append((image.name, image.problem))
            else:
                yield image

    stream = iterate_usable()
    while chunk := list(islice(stream, CHUNK_SIZE)):
        yield chunk


def _stage_chunk(
    pool: ThreadPoolExecutor,
    images: list[SourceImage],
    number: int,
    folder: Path,
    image_format: ImageFormat,
    result: StagedImages,
) -> None:
    stamps = (part for image in images for part in (image.name, image.stamp))
    path = folder / f"{number:06d}-{hash_parts([image_format.key, *stamps], 16)}.npz"
    if _is_reusable(path, len(images)):
        result.reused += len(images)
        result.chunks.append(Chunk(path, tuple(image.example for image in images)))
        return
    converted = list(pool.map(lambda image: _convert_image(image, image_format), images))
    result.decoded += sum(not reason for _, reason in converted)
    result.skipped += [
        (image.name, reason) for image, (_, reason) in zip(images, converted, strict=True) if reason
    ]
    examples = (
        None if reason else image.example for image, (_, reason) in zip(images, converted, strict=True)
    )
    _write_chunk(path, [data for data, _ in converted])
    result.chunks.append(Chunk(path, tuple(examples)))


def _is_reusable(path: Path, count: int) -> bool:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            ends = arrays["ends"]
            return len(ends) == count and bool(np.all(np.diff(ends, prepend=0) > 0))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _convert_image(image: SourceImage, image_format: ImageFormat) -> tuple[bytes, str]:
    """Returns (encoded image, ""), or (no bytes, reason) for a bad file.

    The function catches every error, because a damaged file must not stop a long preparation.
    """
    try:
        pixels = decode_image(image.load(), size=image_format.size, resize=image_format.resize)
        return encode_image(pixels, quality=image_format.quality), ""
    except BadImageError as error:
        return b"", str(error)
    except Exception as error:
        return b"", escape_unprintable(f"{type(error).__name__}: {error}"[:200])


def _write_chunk(path: Path, images: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as stream:
            ends = np.cumsum([len(image) for image in images], dtype=np.int64)
            data = np.frombuffer(b"".join(images), np.uint8)
            np.savez(stream, data=data, ends=ends)
        temporary.replace(path)
    finally:
        remove_file(temporary)
