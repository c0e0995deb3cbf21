"""The preparation plan of a data set: all facts that are known before any image is decoded."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

SPLITS = ("train", "val", "test")
DEFAULT_MAX_FILE_BYTES = 32 * 2**20
DIGEST_LENGTH = 12  # of a source; earlier versions had 10


@dataclass(frozen=True)
class Example:
    """One example without its pixels.

    Attributes:
      id: Published file name, or the path in the manifest.
      split: Name of the split, one of SPLITS.
      label: Index into the class names.
      group: Index into the group names; -1 = unknown.
      attributes: Additional integers that are stored with the image, by name.
      sha256: SHA-256 of the image file; "" where it is not known.
    """

    id: str
    split: str
    label: int
    group: int
    attributes: Mapping[str, int] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True)
class SourceImage:
    """One image file of the source.

    Attributes:
      name: Name of the file in reports.
      stamp: Text that changes when the content of the file, or what is known of the image, changes.
      load: Function that returns the encoded image; may raise OSError.
      example: Example that the file becomes. None: the name or the annotation is malformed.
      problem: Reason why the file is skipped; empty for a usable file.
    """

    name: str
    stamp: str
    load: Callable[[], bytes]
    example: Example | None
    problem: str = ""


@dataclass(frozen=True)
class ExampleTable:
    """Table of N stored examples without their pixels.

    Attributes:
      ids: Published file names, or the paths in the manifest, text [N].
      splits: Names of splits, text [N], items of SPLITS.
      labels: Indices into the class names, int32 [N].
      groups: Indices into the group names, int32 [N]; -1 = unknown.
      attributes: Additional integers, int32 [N], by name.
      hashes: SHA-256 of the image files, text [N]; None where they are not known.
    """

    ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    hashes: np.ndarray | None = None

    def select_rows(self, indices: np.ndarray) -> "ExampleTable":
        """Returns the table of the given rows.

        Args:
          indices: Row numbers, int [n], in the order of the result.
        """
        attributes = {name: values[indices] for name, values in self.attributes.items()}
        return ExampleTable(
            self.ids[indices],
            self.splits[indices],
            self.labels[indices],
            self.groups[indices],
            attributes,
            None if self.hashes is None else self.hashes[indices],
        )


@dataclass(frozen=True)
class PreparationPlan:
    """All settings that determine the stored data, and the access to the source.

    Attributes:
      name: Name of the data set.
      settings: Settings that change the stored data, as text for the name of a folder.
      source_digest: Function that computes a digest of the content of the source; "" for a data set without
        a source. None: the source is not available.
      source: Absolute path of the source; "" for a data set that is part of the package.
      missing_message: One-line error message for a source that is not available.
      size: Side of the stored images in pixels.
      resize: "squash" or "pad".
      class_names: Names of the labels.
      group_names: Names of the groups.
      list_images: Function that yields the images of the source in the source's order; its argument is the
        largest size of a file in bytes.
      attributes: Names of the additional integers of each example.
      sort_by_id: Whether images are stored in the order of their ids instead of the source's order.
      quality: JPEG quality of the stored images, 1 to 100; 0 = PNG.
      apply_rules: Function that replaces the splits and groups of the stored table when the data set is
        opened. Its rules can change without a new preparation. None: the stored table is used unchanged.
      earlier_digest: Function that computes the digest by which earlier versions named the source; it reads
        no image.
      check_copies: Function that raises a UsageError where equal images are in two splits. None: such copies
        are left out of train and val when the data set is opened, as its splits are not the user's.
      max_file_bytes: Largest size of an image file.
      origin: Path that the images were listed at, where data of another path are not these data although
        their settings are equal; "" otherwise.
      num_train: Number of training images that the source lists; None where it is not known.
    """

    name: str
    settings: str
    source_digest: Callable[[], str] | None
    source: str
    missing_message: str
    size: int
    resize: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    list_images: Callable[[int], Iterator[SourceImage]]
    attributes: tuple[str, ...] = ()
    sort_by_id: bool = False
    quality: int = 0
    apply_rules: Callable[[ExampleTable], ExampleTable] | None = None
    earlier_digest: Callable[[], str] | None = None
    check_copies: Callable[[], None] | None = None
    max_file_bytes: int = DEFAULT_MAX_FILE_BYTES
    origin: str = ""
    num_train: int | None = None

    @property
    def reads_files(self) -> bool:
        """Whether the images are files of a source, and not made by the package."""
        return self.earlier_digest is not None

    @cached_property  # the digest looks at all files of the source
    def config_name(self) -> str:
        """Name of the folder of the prepared data, without the version."""
        digest = self.source_digest() if self.source_digest else ""
        return f"{self.settings}-{digest}" if digest else self.settings


def hash_parts(parts: Iterable[str | bytes], length: int = 10) -> str:
    """Returns the first hexadecimal digits of the SHA-256 of several parts.

    The hash includes the length of each part, so ("ab", "c") and ("a", "bc") have different hashes.

    Args:
      parts: Texts (hashed as UTF-8) or bytes.
      length: Number of digits.
    """
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()[:length]


def escape_unprintable(text: str) -> str:
    """Replaces unprintable characters with escapes, so that any terminal prints the text as one line."""
    visible = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
    return visible.encode("utf-8", "backslashreplace").decode()
