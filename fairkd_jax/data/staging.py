"""Decodes a source in chunks, each kept in one file, so that a killed preparation resumes."""

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
from PIL import Image, UnidentifiedImageError

from fairkd_jax.data.images import decode_image, encode_image
from fairkd_jax.data.plan import Entry, Example, digest, printable
from fairkd_jax.data.progress import Progress

CHUNK_SIZE = 64  # images that a killed preparation loses at most


@dataclass(frozen=True)
class Form:
    """How images are stored.

    Attributes:
      size: side of the square in pixels.
      resize: "squash" or "pad".
      quality: as JPEG, 1 to 100; 0: PNG.
    """

    size: int
    resize: str
    quality: int


@dataclass(frozen=True)
class Chunk:
    """A staged file and the example of each of its images (None where the image is bad)."""

    path: Path
    examples: tuple[Example | None, ...]

    def images(self) -> list[bytes]:
        """Reads the encoded bytes of each image; empty where the image is bad."""
        with np.load(self.path, allow_pickle=False) as arrays:
            data, ends = arrays["data"].tobytes(), arrays["ends"].tolist()
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class Staged:
    """What has been decoded.

    Attributes:
      chunks: the staged files in the order of the source.
      skipped: (name, reason) of each file that is left out, in the order of the source.
      total: number of files, the skipped ones included.
      decoded: how many images were decoded now.
      reused: how many were found staged by an earlier run.
    """

    chunks: list[Chunk] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    total: int = 0
    decoded: int = 0
    reused: int = 0

    @property
    def examples(self) -> list[Example]:
        """The good examples in the order of the source."""
        return [example for chunk in self.chunks for example in chunk.examples if example is not None]


def stage(entries: Iterable[Entry], folder: Path, *, form: Form, progress: Progress) -> Staged:
    """Decodes every entry on all cores and keeps the results in files of `folder`.

    A chunk that an earlier run has staged is used again if its entries have not changed since and none of
    its images was bad.

    Args:
      entries: the source, in a fixed order.
      folder: where chunks are kept; made if absent.
      form: how the images are stored.
      progress: is told of each finished chunk.
    """
    result = Staged()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for number, chunk in enumerate(_chunks(entries, result)):
                _stage_chunk(pool, chunk, number, folder, form, result)
                progress.update(result.total, len(result.skipped))
    finally:
        pool.shutdown(cancel_futures=True)
    return result


def _chunks(entries: Iterable[Entry], result: Staged) -> Iterator[list[Entry]]:
    def usable() -> Iterator[Entry]:
        for entry in entries:
            result.total += 1
            if entry.problem:
                result.skipped.append((entry.name, entry.problem))
            else:
                yield entry

    stream = usable()
    while chunk := list(islice(stream, CHUNK_SIZE)):
        yield chunk


def _stage_chunk(
    pool: ThreadPoolExecutor,
    entries: list[Entry],
    number: int,
    folder: Path,
    form: Form,
    result: Staged,
) -> None:
    stamps = (part for entry in entries for part in (entry.name, entry.stamp))
    path = folder / f"{number:06d}-{digest([repr(form), *stamps], 16)}.npz"
    if _is_reusable(path, len(entries)):
        result.reused += len(entries)
        result.chunks.append(Chunk(path, tuple(entry.example for entry in entries)))
        return
    converted = list(pool.map(lambda entry: _convert(entry, form), entries))
    result.decoded += sum(not reason for _, reason in converted)
    result.skipped += [
        (entry.name, reason) for entry, (_, reason) in zip(entries, converted, strict=True) if reason
    ]
    examples = (
        None if reason else entry.example for entry, (_, reason) in zip(entries, converted, strict=True)
    )
    _write(path, [image for image, _ in converted])
    result.chunks.append(Chunk(path, tuple(examples)))


def _is_reusable(path: Path, count: int) -> bool:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            ends = arrays["ends"]
            return len(ends) == count and bool(np.all(np.diff(ends, prepend=0) > 0))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _convert(entry: Entry, form: Form) -> tuple[bytes, str]:
    """Returns (encoded image, "") or (no bytes, why): a damaged file must never end a long preparation."""
    try:
        pixels = decode_image(entry.load(), size=form.size, resize=form.resize)
        return encode_image(pixels, quality=form.quality), ""
    except UnidentifiedImageError:
        return b"", "not an image of a known format"
    except Exception as error:
        return b"", printable(f"{type(error).__name__}: {error}"[:200])


def _write(path: Path, images: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as stream:
            ends = np.cumsum([len(image) for image in images], dtype=np.int64)
            np.savez(stream, data=np.frombuffer(b"".join(images), np.uint8), ends=ends)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
