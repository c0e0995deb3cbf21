"""Random access to a split of a prepared data set, with an optional cache of the images."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
from absl import logging

from fairkd_jax.data.available_memory import read_available_bytes, read_available_device_bytes
from fairkd_jax.data.controls import paint_patches, shuffle_groups
from fairkd_jax.data.images import decode_stored_image
from fairkd_jax.data.layout import report_damage
from fairkd_jax.data.preparation_plan import ExampleTable
from fairkd_jax.errors import UsageError

# The modes after "auto" are in the order of their memory use, from most to least.
CACHE_MODES = ("auto", "device", "host", "none")
_SHARE_OF_MEMORY = 0.25  # share of the free memory that the images may use


class Split:
    """The N examples of a split, in stored order.

    Attributes:
      name: "train", "val" or "test".
      size: Side of the images in pixels.
      ids: Published file name or manifest path of each example.
      labels: Labels, int32 [N].
      groups: Groups, int32 [N]; -1 = unknown.
      attributes: Additional integers of the data set, int32 [N], by name.
      counts: Number of examples of each known group and label, int64 [G, C].
      cache: Place of the decoded images after the first access: "device", "host" or "none". With "device",
        the training copies the images to the devices and then releases the copy on the host.
    """

    def __init__(
        self,
        records: Sequence[dict],
        table: ExampleTable,
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
          records: Random access to dicts whose "image" is the bytes of an image file.
          table: Table of the examples, in the order of the records.
          folder: Folder of the prepared data.
          name: Name of the split.
          size: Side of the images in pixels.
          shape: Number of groups and number of classes, (G, C).
          cache: Mode of the image cache. "device" and "host" decode all images at the first access; "none"
            decodes at each access. "auto" selects the first of "device" and "host" whose images use less than
            a quarter of the free memory there, otherwise "none".
          patched: Whether a patch in each image shows its group (see `controls`).

        Raises:
          UsageError: The cache mode is unknown.
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
        self.cache = self._choose_cache(cache)
        if self.cache == "none" and cache == "auto":
            logging.info("%s: %d images, decoded at each access", name, len(self))
        self._images: np.ndarray | None = None
        self._lock = Lock()

    def compute_digest(self) -> str:
        """Computes a digest of the ids, labels and groups, in stored order, which identifies the data.

        Images with patches change the digest. Shuffled groups do not, because the data stay the same.

        Returns:
          16 hexadecimal digits of a SHA-256.
        """
        content = hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogatepass"))
        if self._patched:
            content.update(b"patched")
        for numbers in (self.labels, self._stored_groups):
            content.update(np.ascontiguousarray(numbers, "<i4").tobytes())
        return content.hexdigest()[:16]

    def shuffle_groups(self, seed: int) -> None:
        """Permutes the groups within each class (see `controls`); the counts stay the same.

        Args:
          seed: Random seed of the permutation.
        """
        self.groups = shuffle_groups(self.labels, self._stored_groups, seed)

    def _get_cache(self) -> np.ndarray | None:
        """Returns all images, decoded at the first call; None if the cache mode is "none"."""
        if self.cache == "none":
            return None
        with self._lock:
            if self._images is None:
                logging.info(
                    "%s: %d images, %.1f MB decoded, kept in the memory of the %s",
                    self.name,
                    len(self),
                    self._count_bytes() / 1e6,
                    self.cache,
                )
                self._images = self._decode_images(np.arange(len(self)))
        return self._images

    def count_pending_bytes(self) -> int:
        """Returns the host memory in bytes that the cache will need and does not use yet."""
        return self._count_bytes() if self.cache != "none" and self._images is None else 0

    def _count_bytes(self) -> int:
        return len(self) * self.size**2 * 3

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns an example: image uint8 [S, S, 3]; label, group and index int32 []."""
        position = range(len(self))[index]
        return {
            "image": self.read_images(np.array([position]))[0],
            "label": np.asarray(self.labels[position]),
            "group": np.asarray(self.groups[position]),
            "index": np.asarray(position, np.int32),
        }

    def read_images(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Reads images by position.

        Args:
          indices: Positions in the split, int [n]. None: all positions.

        Returns:
          Images, uint8 [n, S, S, 3]. Without indices and with a cache, the result is the cache itself and
          must not be changed.

        Raises:
          UsageError: The prepared data are damaged.
        """
        cache = self._get_cache()
        if indices is None:
            return self._decode_images(np.arange(len(self))) if cache is None else cache
        if cache is not None:
            return cache[indices]
        result = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            result[row] = self._read_image(index)
        return result

    def _read_image(self, index: int) -> np.ndarray:
        with report_damage(self._folder):
            image = decode_stored_image(self._records[index]["image"])
        if self._patched:
            return paint_patches(image, int(self.groups[index]), len(self.counts))
        return image

    def _decode_images(self, indices: np.ndarray) -> np.ndarray:
        result = np.empty((len(indices), self.size, self.size, 3), np.uint8)

        def decode(row: int) -> None:
            result[row] = self._read_image(int(indices[row]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode, range(len(indices))):
                pass
        return result

    def release_images(self) -> None:
        """Releases the decoded images; the next access decodes the images again."""
        with self._lock:
            self._images = None

    def _choose_cache(self, cache: str) -> str:
        if cache not in CACHE_MODES:
            raise UsageError(f"unknown cache {cache!r}; use one of {', '.join(CACHE_MODES)}")
        if cache != "auto":
            return cache
        if self._count_bytes() < _SHARE_OF_MEMORY * read_available_device_bytes():
            return "device"
        return "host" if self._count_bytes() < _SHARE_OF_MEMORY * read_available_bytes() else "none"
