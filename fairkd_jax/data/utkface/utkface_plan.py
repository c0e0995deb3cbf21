"""The preparation plan of UTKFace, from a folder of images, the published archive or a zip."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fairkd_jax.data.preparation_plan import Example, PreparationPlan, SourceImage, escape_unprintable
from fairkd_jax.data.raw_files import (
    compute_earlier_digest,
    compute_source_digest,
    list_folder,
    read_archive,
)
from fairkd_jax.data.utkface.file_names import ATTRIBUTES, assign_split, parse_name
from fairkd_jax.errors import UsageError
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.user_paths import parse_path

STORED = ("age", "gender", "race")
_WHERE = (
    "download UTKFace.tar.gz (aligned and cropped faces) by hand from https://susanqq.github.io/UTKFace"
    " and give the path of the archive, or of the unpacked folder, as the source"
)


def plan_utkface(
    *, source: str, size: int, resize: str, target: str = "age_group", protected: str = "gender"
) -> PreparationPlan:
    """Plans the preparation of UTKFace.

    Args:
      source: Path of the published tar archive, of a zip archive or of a folder of the images. "" uses
        prepared data only.
      size: Side of the stored images in pixels.
      resize: "squash" or "pad".
      target: Attribute that gives the labels, a key of ATTRIBUTES.
      protected: Attribute that gives the groups, another key of ATTRIBUTES.

    Raises:
      UsageError: An attribute is unknown, or the two attributes are equal.
    """
    for option, value in (("target", target), ("protected", protected)):
        if value not in ATTRIBUTES:
            raise UsageError(
                f"{option}={value!r} is not an attribute of UTKFace; use one of {', '.join(ATTRIBUTES)}"
            )
    if target == protected:
        raise UsageError(f"target and protected are both {target!r}; choose two different attributes")
    path = parse_path(source).absolute()
    at_hand = bool(source) and (path.is_file() or path.is_dir())  # no device is read
    return PreparationPlan(
        name="utkface",
        settings=f"s{size}-{resize}-{target}-{protected}",
        source_digest=partial(compute_source_digest, path) if at_hand else None,
        earlier_digest=partial(compute_earlier_digest, path),
        source=str(path) if source else "",
        missing_message=f"there is nothing at {path}{explain_missing(path)}; {_WHERE}"
        if source and not at_hand
        else f"UTKFace needs a source; {_WHERE}",
        size=size,
        resize=resize,
        class_names=ATTRIBUTES[target],
        group_names=ATTRIBUTES[protected],
        list_images=partial(_list_images, path, target, protected),
        attributes=STORED,
        sort_by_id=True,
    )


def _list_images(path: Path, target: str, protected: str, max_bytes: int) -> Iterator[SourceImage]:
    seen: set[str] = set()
    for file in list_folder(path) if path.is_dir() else read_archive(path, max_bytes=max_bytes):
        example, problem = None, file.find_problem(max_bytes)
        try:
            values = parse_name(file.name)
        except ValueError as error:
            problem = str(error)
        else:
            if file.name in seen:
                problem = "the name occurs twice"
            seen.add(file.name)
            stored = {name: values[name] for name in STORED}
            example = Example(
                file.name,
                assign_split(file.name),
                values[target],
                values[protected],
                stored,
                sha256=file.stamp,
            )
        yield SourceImage(escape_unprintable(file.name), file.stamp, file.load, example, problem)
