"""Balanced sampling: the groups of a class are equally frequent in training."""

import numpy as np


class GroupBalance:
    """Sampler that replaces each image of a batch with an image of the same class and a uniform random group.

    The classes of a batch stay unchanged, and so does an image of unknown group. The sampler draws with
    replacement, so images of a rare group repeat often.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray, shape: tuple[int, int]) -> None:
        """Sorts the images by class and group.

        Args:
          labels: Labels, int [N].
          groups: Groups, int [N]; -1 = unknown.
          shape: Number of groups and number of classes, (G, C).
        """
        self._labels, self._known = labels, groups >= 0
        num_groups, num_classes = shape
        cell = np.where(self._known, labels * num_groups + groups, num_groups * num_classes)
        self._order = np.argsort(cell, kind="stable")
        sizes = np.bincount(cell, minlength=num_groups * num_classes + 1)[:-1]
        self._sizes = sizes.reshape(num_classes, num_groups)
        self._starts = (np.cumsum(sizes) - sizes).reshape(num_classes, num_groups)
        present = self._sizes > 0
        # The row of a class starts with the groups that have images in the class.
        self._groups = np.argsort(~present, axis=1, kind="stable")
        self._num_groups = present.sum(axis=1)

    def __call__(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws the replacement of each image of a batch.

        Args:
          indices: Positions of the images in the split, int [B].
          rng: Random generator of the batch.

        Returns:
          Positions of the replacements, int [B].
        """
        first, second = rng.random((2, len(indices)))
        label = self._labels[indices]
        group = self._groups[label, (first * self._num_groups[label]).astype(int)]
        place = self._starts[label, group] + (second * self._sizes[label, group]).astype(int)
        # The place may be beyond the end for a class without known groups. The last line keeps such images.
        drawn = self._order[np.minimum(place, len(self._order) - 1)]
        return np.where(self._known[indices], drawn, indices)


def compute_balanced_counts(counts: np.ndarray) -> np.ndarray:
    """Computes the mean number of images of each group and class in a balanced epoch.

    Args:
      counts: Number of images of each known group and class, int [G, C].

    Returns:
      Mean number of drawn images, float64 [G, C]. The groups with images in a class have equal shares.
    """
    present = counts > 0
    number = np.maximum(present.sum(axis=0), 1)
    return np.where(present, counts.sum(axis=0) / number, 0.0)
