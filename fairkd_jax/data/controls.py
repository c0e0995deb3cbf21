"""Changes of a data set that show whether debiasing does what it claims, and no more."""

import colorsys

import numpy as np

# "patch", the positive control: every image tells its group. "shuffle", the placebo: no training image does.
CONTROLS = ("none", "patch", "shuffle")
_PLACES = (1 / 6, 1 / 2, 5 / 6)


def paint_patches(image: np.ndarray, group: int, num_groups: int) -> np.ndarray:
    """Paints nine small squares in the colour of the group: a crop of half of the area still has one.

    Args:
      image: uint8 [S, S, 3].
      group: in [0, num_groups), or -1 where unknown: nothing is painted.
      num_groups: G; the hues of the groups are evenly spaced.

    Returns:
      uint8 [S, S, 3], a copy where something was painted.
    """
    if group < 0:
        return image
    painted = image.copy()
    size = len(image)
    side = max(2, size // 16)
    colour = np.round(255 * np.array(colorsys.hsv_to_rgb(group / num_groups, 1.0, 1.0))).astype(np.uint8)
    for row in _PLACES:
        for column in _PLACES:
            top, left = (round(size * place) - side // 2 for place in (row, column))
            painted[top : top + side, left : left + side] = colour
    return painted


def shuffled_groups(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Deals the known groups of each class out again, at random.

    Args:
      labels: int [N].
      groups: int [N], -1 where unknown: stays so.
      seed: of the shuffle.

    Returns:
      int32 [N], with as many of each group in each class as before.
    """
    rng = np.random.default_rng([seed, 2])
    shuffled = groups.copy()
    for label in np.unique(labels):
        members = np.flatnonzero((labels == label) & (groups >= 0))
        shuffled[members] = groups[rng.permutation(members)]
    return shuffled
