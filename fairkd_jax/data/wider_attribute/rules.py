"""Rules that give each image of WIDER Attribute its group and its split."""

import hashlib
from collections.abc import Callable

import numpy as np

GROUP_NAMES = ("male", "female")
_VALIDATION_SHARE = 0.1


def assign_majority_groups(male: np.ndarray, female: np.ndarray, unspecified: np.ndarray) -> np.ndarray:
    """Returns the gender of the majority of the specified persons in each image.

    Args:
      male: Number of male persons, int [N].
      female: Number of female persons, int [N].
      unspecified: Number of persons of unspecified gender, int [N]. This rule ignores the number.

    Returns:
      Groups, int32 [N]: 0 = male, 1 = female, -1 = unknown (a tie, or no specified person).
    """
    del unspecified
    return np.select([male > female, male < female], [0, 1], -1).astype(np.int32)


def assign_fraction_groups(male: np.ndarray, female: np.ndarray, unspecified: np.ndarray) -> np.ndarray:
    """Returns male for images in which at least half of all persons are male, otherwise female.

    Args:
      male: Number of male persons, int [N].
      female: Number of female persons, int [N].
      unspecified: Number of persons of unspecified gender, int [N]. The total includes these persons.

    Returns:
      Groups, int32 [N]: 0 = male, 1 = female. No group is unknown.
    """
    return np.where(2 * male >= np.maximum(male + female + unspecified, 1), 0, 1).astype(np.int32)


GROUP_RULES: dict[str, Callable[..., np.ndarray]] = {
    "majority": assign_majority_groups,
    "fraction": assign_fraction_groups,
}


def keep_official_splits(splits: np.ndarray, scenes: np.ndarray, ids: list[str], seed: int) -> np.ndarray:
    """Returns the published splits unchanged.

    Args:
      splits: Published splits, text [N].
      scenes: Scene ids, int [N]. This rule ignores the scenes.
      ids: Published names of the N images. This rule ignores the names.
      seed: Random seed. This rule ignores the seed.

    Returns:
      Splits, text [N].
    """
    del scenes, ids, seed
    return splits


def assign_half_test_splits(splits: np.ndarray, scenes: np.ndarray, ids: list[str], seed: int) -> np.ndarray:
    """Returns the splits of an earlier study: half of the published test images join train and val.

    In each scene, a hash of the seed and the name selects half of the test images for training. One tenth of
    all training images of the scene then becomes the validation split.

    Args:
      splits: Published splits, text [N].
      scenes: Scene ids, int [N].
      ids: Published names of the N images.
      seed: Random seed of the selection.

    Returns:
      Splits, text [N].
    """
    hashes = np.array([_hash_name(seed, name) for name in ids])
    result = np.full(len(ids), "train", dtype="<U5")
    for scene in np.unique(scenes):
        tested = np.flatnonzero((scenes == scene) & (splits == "test"))
        tested = tested[np.argsort(hashes[tested])][len(tested) // 2 :]
        result[tested] = "test"
        trained = np.flatnonzero((scenes == scene) & (result == "train"))
        # Other hashes than for the test images: otherwise val would hold published test images only.
        order = np.argsort([_hash_name(seed, f"val/{ids[i]}") for i in trained])
        result[trained[order][: round(_VALIDATION_SHARE * len(trained))]] = "val"
    return result


def _hash_name(seed: int, name: str) -> str:
    """Returns a text that sorts like a random number and depends only on the seed and the name."""
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).hexdigest()


SPLIT_RULES: dict[str, Callable[..., np.ndarray]] = {
    "official": keep_official_splits,
    "half_test": assign_half_test_splits,
}
# Earlier names of split rules, which stored runs still contain.
RENAMED_SPLIT_RULES = {"capstone": "half_test"}
