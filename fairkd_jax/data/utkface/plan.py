"""The plan of UTKFace: a folder of images or the published archive."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fairkd_jax.data.plan import Entry, Example, Plan, printable
from fairkd_jax.data.source import archive_files, folder_files, source_identity
from fairkd_jax.data.utkface.names import ATTRIBUTES, parse_name, split_of
from fairkd_jax.errors import UsageError

STORED = ("age", "gender", "race")
_WHERE = (
    "download UTKFace.tar.gz (aligned and cropped faces) by hand from https://susanqq.github.io/UTKFace"
    " and give the path of the archive, or of the unpacked folder, as the source"
)


def plan(
    *, source: str, size: int, resize: str, target: str = "age_group", protected: str = "gender"
) -> Plan:
    """Plans UTKFace.

    Args:
      source: the published tar archive or a folder of its images; "" where only prepared data is at hand.
      size: side of the stored images in pixels.
      resize: "squash" or "pad".
      target: what is classified, a key of ATTRIBUTES.
      protected: what the groups are, another key of ATTRIBUTES.

    Raises:
      UsageError: an unknown or doubled attribute.
    """
    for option, value in (("target", target), ("protected", protected)):
        if value not in ATTRIBUTES:
            raise UsageError(
                f"{option}={value!r} is no attribute of UTKFace; use one of {', '.join(ATTRIBUTES)}"
            )
    if target == protected:
        raise UsageError(f"target and protected are both {target!r}; choose two different attributes")
    path = Path(source).expanduser().absolute()
    at_hand = bool(source) and path.exists()
    return Plan(
        name="utkface",
        settings=f"s{size}-{resize}-{target}-{protected}",
        identity=source_identity(path) if at_hand else None,
        source=str(path) if source else "",
        missing=f"there is nothing at {path}; {_WHERE}" if source else f"UTKFace needs a source; {_WHERE}",
        size=size,
        resize=resize,
        class_names=ATTRIBUTES[target],
        group_names=ATTRIBUTES[protected],
        entries=partial(_entries, path, target, protected),
        attributes=STORED,
        sort_by_id=True,
    )


def _entries(path: Path, target: str, protected: str) -> Iterator[Entry]:
    seen: set[str] = set()
    for file in folder_files(path) if path.is_dir() else archive_files(path):
        example, problem = None, file.problem
        try:
            values = parse_name(file.name)
        except ValueError as error:
            problem = str(error)
        else:
            if file.name in seen:
                problem = "the name occurs twice"
            seen.add(file.name)
            stored = {name: values[name] for name in STORED}
            example = Example(file.name, split_of(file.name), values[target], values[protected], stored)
        yield Entry(printable(file.name), file.stamp, file.load, example, problem)
