"""Paints the 1,797 digits of scikit-learn so that only the tint tells the group.

The digits are the test part of E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository 1998 (CC BY 4.0), in the form in which scikit-learn distributes them.
"""

import hashlib
from importlib.resources import files

import numpy as np
from PIL import Image

GROUP_NAMES = ("blue", "orange")
# Colours of the ink for a full stroke, RGB in [0, 1]; both have the luma 0.576 (Rec. 709).
TINTS = np.array([[0.35, 0.60, 1.00], [1.00, 0.50, 0.08]])
TRAIN_SHARE, VAL_SHARE = 0.60, 0.15


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the embedded digits.

    Returns:
      images: uint8 [1797, 8, 8], ink from 0 to 16.
      labels: int32 [1797].
    """
    with (
        files("fairkd_jax.data.digits").joinpath("digits.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return arrays["images"], arrays["labels"].astype(np.int32)


def split_digits(labels: np.ndarray) -> np.ndarray:
    """Splits each class in a fixed order that no random generator decides.

    Args:
      labels: int [N].

    Returns:
      The split of each digit, text [N]: 60 % train, 15 % val, 25 % test of each class.
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
    """Draws the group of each digit of train and val.

    In each class of each split, exactly round(skew * n) digits get the class's own group: 0 for even digits,
    1 for odd ones.

    Args:
      labels: int [N].
      splits: text [N].
      skew: share of the class's own group in [0, 1].
      seed: of the draw.

    Returns:
      int32 [N]; -1 for the digits of test, which appear in both tints.
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


def paint(ink: np.ndarray, group: int, *, size: int, noise: float, seed: int, index: int) -> np.ndarray:
    """Enlarges one digit and paints it in the tint of its group on black.

    The noise depends on `seed` and `index` alone, so the two tints of one digit differ in nothing else.

    Args:
      ink: uint8 [8, 8], 0 to 16.
      group: 0 or 1.
      size: side of the result in pixels.
      noise: standard deviation of the Gaussian noise that is added to the grey value, in units of [0, 1].
      seed: of the noise.
      index: position of the digit in the whole set.

    Returns:
      uint8 [size, size, 3].
    """
    small = Image.fromarray(ink.astype(np.float32) / 16)
    grey = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float64)
    if noise > 0:
        grey = grey + np.random.default_rng([seed, 1, index]).normal(0.0, noise, grey.shape)
    return np.round(np.clip(grey, 0, 1)[:, :, None] * TINTS[group] * 255).astype(np.uint8)
