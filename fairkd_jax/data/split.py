"""Random access to one split of a prepared data set, with or without a copy in memory."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
from absl import logging

from fairkd_jax.data.controls import paint_patches, shuffled_groups
from fairkd_jax.data.images import decode_stored
from fairkd_jax.data.layout import usable
from fairkd_jax.data.memory import available_bytes, available_device_bytes
from fairkd_jax.data.plan import Table
from fairkd_jax.errors import UsageError

# After "auto", from the one that takes most memory to the one that takes least.
CACHE_MODES = ("auto", "device", "host", "none")
_SHARE_OF_MEMORY = 0.25  # of what is free


class Split:
    """The examples of one split, in their stored order.

    Attributes:
      name: "train", "val" or "test".
      size: side of the images in pixels.
      ids: the published file name or manifest path of each example.
      labels: int32 [N].
      groups: int32 [N], -1 = unknown.
      attributes: name -> int32 [N], further integers that the data set has.
      counts: int64 [G, C], number of examples by known group and label.
      cache: where the decoded images stay from the first one asked for on: "device" (a training holds them
        there; here they are dropped once handed over), "host", or "none".
    """

    def __init__(
        self,
        records: Sequence[dict],
        table: Table,
        folder: Path,
        name: str,
        *,
        size: int,
        shape: tuple[int, int],
        cache: str,
        patched: bool = False,
    ) -> None:
        """Opens a split.

        Args:
          records: random access to dicts whose "image" is the bytes of an image file.
          table: what is known of each, in the same order.
          folder: the prepared data that they are from.
          name: of the split.
          size: side of the images in pixels.
          shape: (number of groups, number of classes).
          cache: "device" and "host" decode everything once, when first needed; "none" decodes on access;
            "auto" is the first of these where the images take less than a quarter of the memory that is free.
          patched: whether a patch in each image tells its group (see `controls`).
        """
        self.ids: list[str] = table.ids.tolist()
        self.labels, self.groups, self.attributes = table.labels, table.groups, table.attributes
        self.name = name
        self.counts = np.zeros(shape, np.int64)
        known = self.groups >= 0
        np.add.at(self.counts, (self.groups[known], self.labels[known]), 1)
        self._records, self._folder = records, folder
        self.size, self._patched = size, patched
        self._stored_groups = self.groups
        self.cache = self._place(cache)
        if self.cache == "none":
            logging.info("%s: %d images, decoded whenever they are read", name, len(self))
        self._images: np.ndarray | None = None
        self._lock = Lock()

    def digest(self) -> str:
        """Tells data sets apart: a hash of the ids, labels and groups, in their order, as they are stored.

        Images with patches are others, but shuffled groups are the same data, learnt from otherwise.
        """
        content = hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogatepass"))
        if self._patched:
            content.update(b"patched")
        for numbers in (self.labels, self._stored_groups):
            content.update(np.ascontiguousarray(numbers, "<i4").tobytes())
        return content.hexdigest()[:16]

    def shuffle_groups(self, seed: int) -> None:
        """Deals the groups out again within each class (see `controls`); the counts stay the same."""
        self.groups = shuffled_groups(self.labels, self._stored_groups, seed)

    def _cache(self) -> np.ndarray | None:
        """All images, decoded at the first call, where they are to be kept in memory."""
        if self.cache == "none":
            return None
        with self._lock:
            if self._images is None:
                logging.info(
                    "%s: %d images, %.1f MB decoded, kept in the memory of the %s",
                    self.name,
                    len(self),
                    self._bytes() / 1e6,
                    self.cache,
                )
                self._images = self._decoded(np.arange(len(self)))
        return self._images

    def coming_bytes(self) -> int:
        """Memory of the host that the decoded images have yet to take, where they are to be kept."""
        return self._bytes() if self.cache != "none" and self._images is None else 0

    def _bytes(self) -> int:
        return len(self) * self.size**2 * 3

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one example: image uint8 [S, S, 3]; label, group and index int32 []."""
        position = range(len(self))[index]
        return {
            "image": self.images(np.array([position]))[0],
            "label": np.asarray(self.labels[position]),
            "group": np.asarray(self.groups[position]),
            "index": np.asarray(position, np.int32),
        }

    def images(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Returns images by position.

        Args:
          indices: int [n], positions in the split; all of them by default.

        Returns:
          uint8 [n, S, S, 3]. With no indices and a cache, the cache itself: do not write to it.
        """
        cache = self._cache()
        if indices is None:
            return self._decoded(np.arange(len(self))) if cache is None else cache
        if cache is not None:
            return cache[indices]
        result = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            result[row] = self._image(index)
        return result

    def _image(self, index: int) -> np.ndarray:
        with usable(self._folder):
            image = decode_stored(self._records[index]["image"])
        if self._patched:
            return paint_patches(image, int(self.groups[index]), len(self.counts))
        return image

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        result = np.empty((len(indices), self.size, self.size, 3), np.uint8)

        def decode(row: int) -> None:
            result[row] = self._image(int(indices[row]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode, range(len(indices))):
                pass
        return result

    def release(self) -> None:
        """Drops the decoded images; they are decoded again if asked for."""
        with self._lock:
            self._images = None

    def _place(self, cache: str) -> str:
        if cache not in CACHE_MODES:
            raise UsageError(f"unknown cache {cache!r}; use one of {', '.join(CACHE_MODES)}")
        if cache != "auto":
            return cache
        if self._bytes() < _SHARE_OF_MEMORY * available_device_bytes():
            return "device"
        return "host" if self._bytes() < _SHARE_OF_MEMORY * available_bytes() else "none"
