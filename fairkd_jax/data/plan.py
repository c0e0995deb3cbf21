"""What a data set says about itself before any image is decoded."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Example:
    """What is known of one image besides its pixels.

    Attributes:
      id: the published file name, or the path written in the manifest.
      split: one of SPLITS.
      label: index into the class names.
      group: index into the group names, -1 = unknown.
      attributes: further integers that are stored with the image.
    """

    id: str
    split: str
    label: int
    group: int
    attributes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One file of the source.

    Attributes:
      name: what reports call it.
      stamp: a text that changes when the file does (size and time of the last change).
      load: returns the encoded image; may raise OSError.
      example: what the name or the manifest says of it; None when that is malformed.
      problem: why the file is skipped; empty when it is not.
    """

    name: str
    stamp: str
    load: Callable[[], bytes]
    example: Example | None
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """What is known of stored images besides their pixels; a row each, all of the same length.

    Attributes:
      ids: the published file names, or the paths written in the manifest.
      splits: items of SPLITS.
      labels: int32, indices into the class names.
      groups: int32, indices into the group names, -1 = unknown.
      attributes: name -> int32, the further integers.
    """

    ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, indices: np.ndarray) -> "Table":
        """The table of some rows, in the given order."""
        attributes = {name: values[indices] for name, values in self.attributes.items()}
        return Table(
            self.ids[indices], self.splits[indices], self.labels[indices], self.groups[indices], attributes
        )


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is stored, and the way to the source.

    Attributes:
      name: the data set's name.
      settings: the settings that change what is stored, as part of a folder's name.
      identity: a digest of the source ("" where there is none); None when the source is not at hand.
      source: where the source was found, absolute; "" for an embedded data set.
      missing: the one-line error for a source that is not at hand.
      size: side of the stored images in pixels.
      resize: "squash" or "pad".
      class_names: names of the labels.
      group_names: names of the groups.
      entries: lists the source in its own order.
      attributes: names of the further integers of each example.
      sort_by_id: store in the order of the ids rather than of the source.
      quality: of the stored images as JPEG, 1 to 100; 0: PNG.
      view: what becomes of the stored table when it is opened: other splits and groups for the same rows, by
        rules that can change without preparing again; None where it is used as it was stored.
    """

    name: str
    settings: str
    identity: str | None
    source: str
    missing: str
    size: int
    resize: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    entries: Callable[[], Iterator[Entry]]
    attributes: tuple[str, ...] = ()
    sort_by_id: bool = False
    quality: int = 0
    view: Callable[[Table], Table] | None = None

    @property
    def config_name(self) -> str:
        """The name of the folder that holds what this plan prepares."""
        return f"{self.settings}-{self.identity}" if self.identity else self.settings


def digest(parts: Iterable[str | bytes], length: int = 10) -> str:
    """Returns the first hexadecimal digits of the SHA-256 of the parts, which are kept apart.

    Args:
      parts: texts (hashed as UTF-8) or bytes.
      length: number of digits.
    """
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()[:length]


def printable(text: str) -> str:
    """Returns `text` as one line that any terminal can print: odd characters become escapes."""
    visible = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
    return visible.encode("utf-8", "backslashreplace").decode()
