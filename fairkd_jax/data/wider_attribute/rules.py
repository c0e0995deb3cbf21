"""How an image gets its group from the persons in it, and the images their splits."""

import hashlib
from collections.abc import Callable

import numpy as np

GROUP_NAMES = ("male", "female")


def majority(male: np.ndarray, female: np.ndarray, unspecified: np.ndarray) -> np.ndarray:
    """Male where more persons are, female where fewer, unknown (-1) at a tie or where none is specified."""
    del unspecified
    return np.select([male > female, male < female], [0, 1], -1).astype(np.int32)


def fraction(male: np.ndarray, female: np.ndarray, unspecified: np.ndarray) -> np.ndarray:
    """Male where at least half of all persons are, the unspecified counted in; female everywhere else."""
    return np.where(2 * male >= np.maximum(male + female + unspecified, 1), 0, 1).astype(np.int32)


GROUP_RULES: dict[str, Callable[..., np.ndarray]] = {"majority": majority, "fraction": fraction}


def official(splits: np.ndarray, scenes: np.ndarray, ids: list[str], seed: int) -> np.ndarray:
    """The published splits."""
    del scenes, ids, seed
    return splits


def capstone(splits: np.ndarray, scenes: np.ndarray, ids: list[str], seed: int) -> np.ndarray:
    """The earlier study's splits: half of the published test images join train and val.

    Of each scene, half of the test images, drawn by a hash of the seed and the name, are trained on, and a
    tenth of all that is trained on validates.
    """
    draws = np.array([_draw(seed, name) for name in ids])
    result = np.full(len(ids), "train", dtype="<U5")
    for scene in np.unique(scenes):
        tested = np.flatnonzero((scenes == scene) & (splits == "test"))
        tested = tested[np.argsort(draws[tested])][len(tested) // 2 :]
        result[tested] = "test"
        trained = np.flatnonzero((scenes == scene) & (result == "train"))
        # Another draw than that of the test images: else only published test images would validate.
        order = np.argsort([_draw(seed, f"val/{ids[i]}") for i in trained])
        result[trained[order][: round(0.1 * len(trained))]] = "val"
    return result


def _draw(seed: int, name: str) -> str:
    """Sorts like a random number that depends on the seed and the name alone."""
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).hexdigest()


SPLIT_RULES: dict[str, Callable[..., np.ndarray]] = {"official": official, "capstone": capstone}
