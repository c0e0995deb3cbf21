"""The plan of WIDER Attribute: whole images, an event class each, and the gender of most persons in them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fairkd_jax.data.plan import Entry, Example, Plan, Table, printable
from fairkd_jax.data.wider_attribute import rules
from fairkd_jax.data.wider_attribute.annotation import Record
from fairkd_jax.data.wider_attribute.scenes import CLASS_NAMES, CLASS_OF_SCENE
from fairkd_jax.data.wider_attribute.source import ANNOTATION_ARCHIVE, IMAGE_ARCHIVE, Source, find
from fairkd_jax.errors import UsageError

STORED = ("scene", "male", "female", "unspecified")
_WHERE = (
    f"download {IMAGE_ARCHIVE} and {ANNOTATION_ARCHIVE} with a browser from"
    " mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute.html and give the folder that holds them, or the unpacked"
    " folder WIDER, as the source"
)


def plan(
    *,
    source: str,
    size: int,
    resize: str,
    group_rule: str = "majority",
    split_rule: str = "official",
    split_seed: int = 0,
) -> Plan:
    """Plans WIDER Attribute.

    What is stored does not depend on the rules: they can change without preparing again.

    Args:
      source: the folder `WIDER` or its parent, or a folder with the two published archives; "" where only
        prepared data is at hand.
      size: side of the stored images in pixels.
      resize: "squash" or "pad".
      group_rule: how an image gets its group from its persons, a key of `rules.GROUP_RULES`.
      split_rule: a key of `rules.SPLIT_RULES`.
      split_seed: of the split rule, where that draws.

    Raises:
      UsageError: an unknown rule, or a damaged annotation.
    """
    for option, value, known in (
        ("group_rule", group_rule, rules.GROUP_RULES),
        ("split_rule", split_rule, rules.SPLIT_RULES),
    ):
        if value not in known:
            raise UsageError(f"unknown {option} {value!r}; use one of {', '.join(known)}")
    path = Path(source).expanduser().absolute()
    found = find(path) if source else None
    records = found.records() if found else []
    return Plan(
        name="wider_attribute",
        settings=f"s{size}-{resize}",
        identity=found.identity(records) if found else None,
        source=str(path) if source else "",
        missing=f"{path} does not hold WIDER Attribute; {_WHERE}"
        if source
        else f"WIDER Attribute needs a source; {_WHERE}",
        size=size,
        resize=resize,
        class_names=CLASS_NAMES,
        group_names=rules.GROUP_NAMES,
        entries=partial(_entries, found, records),
        attributes=STORED,
        sort_by_id=True,
        view=partial(_view, group_rule, split_rule, split_seed),
    )


def _entries(source: Source | None, records: list[Record]) -> Iterator[Entry]:
    assert source is not None  # else its images are not asked for
    for record, file in source.files(records):
        problem = record.problem or ("the image is absent" if file is None else file.problem)
        example = None if problem else _example(record)
        stamp, load = (file.stamp, file.load) if file else ("", bytes)
        yield Entry(printable(record.file_name), f"{stamp}:{record}", load, example, problem)


def _example(record: Record) -> Example:
    counts = {"male": record.male, "female": record.female, "unspecified": record.unspecified}
    group = int(rules.majority(*(np.array(count) for count in counts.values())))
    label = CLASS_OF_SCENE[record.scene]
    return Example(record.file_name, record.split, label, group, {"scene": record.scene, **counts})


def _view(group_rule: str, split_rule: str, split_seed: int, table: Table) -> Table:
    """The stored table by the given rules."""
    persons = (table.attributes[name] for name in ("male", "female", "unspecified"))
    splits = rules.SPLIT_RULES[split_rule](
        table.splits, table.attributes["scene"], table.ids.tolist(), split_seed
    )
    return replace(table, groups=rules.GROUP_RULES[group_rule](*persons), splits=splits)
