"""Reads the published annotation: what is known of each image before it is decoded."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairkd_jax.data.plan import printable
from fairkd_jax.data.wider_attribute.scenes import SCENES
from fairkd_jax.errors import UsageError

FILES = ("wider_attribute_trainval.json", "wider_attribute_test.json")
MALE = 0  # the position of this attribute; 1 is yes, -1 no, 0 unspecified
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One annotated image.

    Attributes:
      file_name: as published, `split/folder/name.jpg`.
      split: of the published data.
      scene: id of the scene; -1 where the annotation is faulty.
      male: how many persons are male.
      female: how many are not.
      unspecified: of how many that is not said.
      problem: why the image is left out; empty where it is not.
    """

    file_name: str
    split: str = ""
    scene: int = -1
    male: int = 0
    female: int = 0
    unspecified: int = 0
    problem: str = ""


def parse(name: str, content: bytes) -> list[Record]:
    """Reads one annotation file.

    A faulty image becomes a record with a problem. Boxes are not read: they may start below 0.

    Args:
      name: what errors call the file.
      content: its bytes.

    Raises:
      UsageError: the file is no annotation, or it is cut short.
    """
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = printable(str(error)[:100])
        raise UsageError(f"{name} is cut short or no JSON ({reason}); download it again") from None
    images = tree.get("images") if isinstance(tree, dict) else None
    if not isinstance(images, list) or not images:
        raise UsageError(f"{name} lists no images; is it the published annotation of WIDER Attribute?")
    scenes = tree.get("scene_id_map", {})
    if scenes and scenes != {str(number): scene for number, scene in enumerate(SCENES)}:
        raise UsageError(f"{name} has other scenes than WIDER Attribute; is it the published annotation?")
    return list(_records(images))


def _records(images: list[Any]) -> Iterator[Record]:
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
            yield _record(file_name, parts[0], image)
        except ValueError as error:
            yield Record(file_name, parts[0], problem=str(error))


def _record(file_name: str, split: str, image: dict[str, Any]) -> Record:
    scene = image.get("scene_id")
    if not isinstance(scene, int) or not 0 <= scene < len(SCENES):
        raise ValueError(f"unknown scene {printable(repr(scene)[:20])}")
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
