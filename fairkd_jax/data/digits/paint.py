"""Functions that paint the 1,797 digits of scikit-learn so that only the tint shows the group.

The digits are the test part of E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository 1998 (CC BY 4.0). The package contains the version that scikit-learn distributes.
"""

import hashlib
from importlib.resources import files

import numpy as np
from PIL import Image

GROUP_NAMES = ("blue", "orange")
# RGB colours of a full stroke, in [0, 1]. Both have the luma 0.576 (Rec. 709).
TINTS = np.array([[0.35, 0.60, 1.00], [1.00, 0.50, 0.08]])
TRAIN_SHARE, VAL_SHARE = 0.60, 0.15


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Loads the digits that the package contains.

    Returns:
      A tuple (images, labels): ink from 0 to 16, uint8 [1797, 8, 8], and labels, int32 [1797].
    """
    with (
        files("fairkd_jax.data.digits").joinpath("digits.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return arrays["images"], arrays["labels"].astype(np.int32)


def split_digits(labels: np.ndarray) -> np.ndarray:
    """Splits the digits of each class in a fixed order, which is a hash of the position.

    Args:
      labels: Labels, int [N].

    Returns:
      Split of each digit, text [N]: 60 % train, 15 % val, 25 % test of each class.
    """
    splits = np.full(len(labels), "test", dtype="<U5")
    for label in np.unique(labels):
        members = sorted(
            np.flatnonzero(labels == label).tolist(),
            key=lambda i: hashlib.sha256(f"digits:{i}".encode()).digest(),
        )
        train = round(TRAIN_SHARE * len(members))
        val = train + round(VAL_SHARE * len(members))
        splits[members[:train]] = "train"
        splits[members[train:val]] = "val"
    return splits


def draw_groups(labels: np.ndarray, splits: np.ndarray, *, skew: float, seed: int) -> np.ndarray:
    """Draws the group of each digit in train and val.

    In each class of each split, exactly round(skew * n) of the n digits get the class's own group. The own
    group is 0 for even digits and 1 for odd digits.

    Args:
      labels: Labels, int [N].
      splits: Splits, text [N].
      skew: Share of the class's own group, in [0, 1].
      seed: Random seed of the groups.

    Returns:
      Groups, int32 [N]; -1 for the digits of test, which are painted in both tints.
    """
    rng = np.random.default_rng([seed, 0])
    groups = np.full(len(labels), -1, np.int32)
    for split in ("train", "val"):
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero((splits == split) & (labels == label)))
            own = round(skew * len(members))
            groups[members[:own]] = label % 2
            groups[members[own:]] = 1 - label % 2
    return groups


def paint_digit(ink: np.ndarray, group: int, *, size: int, noise: float, seed: int, index: int) -> np.ndarray:
    """Enlarges one digit and paints the strokes in the tint of the group on black.

    The noise depends only on `seed` and `index`, so the two images of a test digit differ only in the tint.

    Args:
      ink: Ink from 0 to 16, uint8 [8, 8].
      group: Group that selects the tint, 0 or 1.
      size: Side of the result in pixels.
      noise: Standard deviation of the Gaussian noise on the grey value, in units of [0, 1].
      seed: Random seed of the noise.
      index: Position of the digit among the 1,797 digits.

    Returns:
      Image, uint8 [size, size, 3].
    """
    small = Image.fromarray(ink.astype(np.float32) / 16)
    grey = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float64)
    if noise > 0:
        grey = grey + np.random.default_rng([seed, 1, index]).normal(0.0, noise, grey.shape)
    return np.round(np.clip(grey, 0, 1)[:, :, None] * TINTS[group] * 255).astype(np.uint8)
