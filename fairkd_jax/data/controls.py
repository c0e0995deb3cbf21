"""Control experiments: changes of a data set that test a debiasing method."""

import colorsys

import numpy as np

# "patch" is the positive control: every image shows its group. "shuffle" is the placebo: the groups of the
# training images carry no information.
CONTROLS = ("none", "patch", "shuffle")
_PLACES = (1 / 6, 1 / 2, 5 / 6)


def paint_patches(image: np.ndarray, group: int, num_groups: int) -> np.ndarray:
    """Paints nine small squares in the colour of the group on an image.

    A crop that keeps half of the area still contains a square.

    Args:
      image: Image, uint8 [S, S, 3].
      group: Group in [0, num_groups), or -1 = unknown, which paints nothing.
      num_groups: Number of groups G. The hues of the groups are evenly spaced.

    Returns:
      Image, uint8 [S, S, 3]: a painted copy, or the given image where the group is unknown.
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


def shuffle_groups(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Permutes the known groups within each class at random.

    Args:
      labels: Labels, int [N].
      groups: Groups, int [N]; -1 = unknown, which stays unknown.
      seed: Random seed of the permutation.

    Returns:
      Groups, int32 [N]. Each class has the same number of images of each group as before.
    """
    rng = np.random.default_rng([seed, 2])
    shuffled = groups.copy()
    for label in np.unique(labels):
        members = np.flatnonzero((labels == label) & (groups >= 0))
        shuffled[members] = groups[rng.permutation(members)]
    return shuffled
