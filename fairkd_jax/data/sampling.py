"""Drawing training images so that the groups of a class are equally frequent."""

import numpy as np


class GroupBalance:
    """Replaces the images of a batch by others of the same class, whose groups are equally likely.

    The classes of a batch stay what they are, and so does an image of unknown group. Images are drawn with
    replacement: those of a rare group come again and again.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray, shape: tuple[int, int]) -> None:
        """Sorts the images by class and group.

        Args:
          labels: int [N].
          groups: int [N], -1 where unknown.
          shape: (G, C).
        """
        self._labels, self._known = labels, groups >= 0
        num_groups, num_classes = shape
        cell = np.where(self._known, labels * num_groups + groups, num_groups * num_classes)
        self._order = np.argsort(cell, kind="stable")
        sizes = np.bincount(cell, minlength=num_groups * num_classes + 1)[:-1]
        self._sizes = sizes.reshape(num_classes, num_groups)
        self._starts = (np.cumsum(sizes) - sizes).reshape(num_classes, num_groups)
        present = self._sizes > 0
        # The groups that a class has come first in its row.
        self._groups = np.argsort(~present, axis=1, kind="stable")
        self._num_groups = present.sum(axis=1)

    def __call__(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws for a batch: int [B] -> int [B]."""
        first, second = rng.random((2, len(indices)))
        label = self._labels[indices]
        group = self._groups[label, (first * self._num_groups[label]).astype(int)]
        place = self._starts[label, group] + (second * self._sizes[label, group]).astype(int)
        # A class of which no group is known has no place to draw from.
        drawn = self._order[np.minimum(place, len(self._order) - 1)]
        return np.where(self._known[indices], drawn, indices)


def balanced_counts(counts: np.ndarray) -> np.ndarray:
    """How many images of each group and class are drawn per epoch, on average.

    Args:
      counts: int [G, C], images of known group.

    Returns:
      float64 [G, C]: each class's images in equal parts for the groups that it has.
    """
    present = counts > 0
    number = np.maximum(present.sum(axis=0), 1)
    return np.where(present, counts.sum(axis=0) / number, 0.0)
