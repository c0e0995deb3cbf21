"""Reader of the published annotation files of WIDER Attribute."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairkd_jax.data.preparation_plan import SPLITS, escape_unprintable
from fairkd_jax.data.wider_attribute.scenes import SCENES
from fairkd_jax.errors import UsageError

FILES = ("wider_attribute_trainval.json", "wider_attribute_test.json")
MALE = 0  # position of the attribute; its values are 1 = male, -1 = female, 0 = unspecified


@dataclass(frozen=True)
class Record:
    """One annotated image.

    The digest of a prepared data set covers `repr` of its records. A new name for this class or for a field
    would therefore cause a new preparation.

    Attributes:
      file_name: Published name, `split/folder/name.jpg`.
      split: Published split.
      scene: Id of the scene; -1 if the annotation is faulty.
      male: Number of male persons.
      female: Number of female persons.
      unspecified: Number of persons of unspecified gender.
      problem: Reason why the image is skipped; empty for a usable image.
    """

    file_name: str
    split: str = ""
    scene: int = -1
    male: int = 0
    female: int = 0
    unspecified: int = 0
    problem: str = ""


def parse_annotation(name: str, content: bytes) -> list[Record]:
    """Parses one annotation file.

    A faulty image becomes a record with a problem. The function ignores the boxes, which may start below 0.

    Args:
      name: Name of the file in error messages.
      content: Bytes of the file.

    Returns:
      One record for each image, in the order of the file.

    Raises:
      UsageError: The file is not an annotation of WIDER Attribute, or is cut short.
    """
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = escape_unprintable(str(error)[:100])
        raise UsageError(f"{name} is cut short or not JSON ({reason}); download the file again") from None
    images = tree.get("images") if isinstance(tree, dict) else None
    if not isinstance(images, list) or not images:
        raise UsageError(f"{name} lists no images; use the published annotation of WIDER Attribute")
    scenes = tree.get("scene_id_map", {})
    if scenes and scenes != {str(number): scene for number, scene in enumerate(SCENES)}:
        raise UsageError(f"{name} has other scenes than WIDER Attribute; use the published annotation")
    return list(_iterate_records(images))


def _iterate_records(images: list[Any]) -> Iterator[Record]:
    for number, image in enumerate(images):
        file_name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(file_name, str):
            yield Record(f"image {number}", problem="the annotation names no file")
            continue
        parts = file_name.split("/")
        if len(parts) != 3 or parts[0] not in SPLITS or any(part in ("", ".", "..") for part in parts):
            yield Record(file_name, problem="the file name is not of the form split/folder/name.jpg")
            continue
        try:
            yield _make_record(file_name, parts[0], image)
        except ValueError as error:
            yield Record(file_name, parts[0], problem=str(error))


def _make_record(file_name: str, split: str, image: dict[str, Any]) -> Record:
    scene = image.get("scene_id")
    if not isinstance(scene, int) or not 0 <= scene < len(SCENES):
        raise ValueError(f"unknown scene {escape_unprintable(repr(scene)[:20])}")
    targets = image.get("targets")
    if not isinstance(targets, list) or not targets:
        raise ValueError("no persons are annotated")
    try:
        genders = [target["attribute"][MALE] for target in targets]
    except (TypeError, KeyError, IndexError):
        raise ValueError("a person has no attributes") from None
    if any(gender not in (1, -1, 0) for gender in genders):
        raise ValueError("a person's gender is none of 1, -1 and 0")
    return Record(file_name, split, scene, genders.count(1), genders.count(-1), genders.count(0))
