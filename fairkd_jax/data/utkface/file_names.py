"""Parser of UTKFace file names: `[age]_[gender]_[race]_[time].jpg`, or `.jpg.chip.jpg`.

Z. Zhang, Y. Song, H. Qi: Age Progression/Regression by Conditional Adversarial Autoencoder, CVPR 2017.
"""

import hashlib
import re

ATTRIBUTES = {
    "age_group": ("0-19", "20-39", "40+"),
    "gender": ("male", "female"),
    "race": ("White", "Black", "Asian", "Indian", "Other"),
}
MAX_AGE = 116
_NAME = re.compile(r"([0-9]{1,3})_([01])_([0-4])_[0-9]+\.jpg(?:\.chip\.jpg)?")


def parse_name(name: str) -> dict[str, int]:
    """Reads age, gender and race from a file name.

    Args:
      name: File name without folders.

    Returns:
      A dict with `age` in years, and with the index into ATTRIBUTES for `age_group`, `gender` and `race`.

    Raises:
      ValueError: The name is malformed; the message is the reason.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("the name is not of the form age_gender_race_time.jpg")
    age, gender, race = map(int, match.groups())
    if age > MAX_AGE:
        raise ValueError(f"the age {age} is above {MAX_AGE}")
    return {"age": age, "age_group": (age >= 20) + (age >= 40), "gender": gender, "race": race}


def assign_split(name: str) -> str:
    """Returns the split of a file name: 70 % train, 10 % val, 20 % test, by SHA-256 of the name.

    Args:
      name: File name without folders. Its split is the same on every machine.
    """
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    return "train" if share < 70 else "val" if share < 80 else "test"
