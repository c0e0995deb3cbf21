"""The preparation plan of WIDER Attribute: whole images, event classes, and gender groups."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from fairkd_jax.data.preparation_plan import (
    Example,
    ExampleTable,
    PreparationPlan,
    SourceImage,
    escape_unprintable,
)
from fairkd_jax.data.wider_attribute import rules
from fairkd_jax.data.wider_attribute.annotation import Record
from fairkd_jax.data.wider_attribute.scenes import CLASS_NAMES, CLASS_OF_SCENE
from fairkd_jax.data.wider_attribute.wider_source import (
    ANNOTATION_ARCHIVE,
    IMAGE_ARCHIVE,
    WiderSource,
    find_source,
)
from fairkd_jax.errors import UsageError
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.user_paths import parse_path

STORED = ("scene", "male", "female", "unspecified")
_WHERE = (
    f"download {IMAGE_ARCHIVE} and {ANNOTATION_ARCHIVE} with a browser from"
    " mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute.html and give the folder of the two files, or the unpacked"
    " folder WIDER, as the source"
)


def plan_wider_attribute(
    *,
    source: str,
    size: int,
    resize: str,
    group_rule: str = "majority",
    split_rule: str = "official",
    split_seed: int = 0,
) -> PreparationPlan:
    """Plans the preparation of WIDER Attribute.

    The stored data do not depend on the rules, so the rules can change without a new preparation.

    Args:
      source: Path of the folder `WIDER`, of its parent, or of a folder with the two published archives. ""
        uses prepared data only.
      size: Side of the stored images in pixels.
      resize: "squash" or "pad".
      group_rule: Rule that gives an image its group, a key of `rules.GROUP_RULES`.
      split_rule: Rule that gives an image its split, a key of `rules.SPLIT_RULES`.
      split_seed: Random seed of the split rule "half_test".

    Raises:
      UsageError: A rule is unknown, or the annotation is damaged.
    """
    for option, value, known in (
        ("group_rule", group_rule, rules.GROUP_RULES),
        ("split_rule", split_rule, rules.SPLIT_RULES),
    ):
        if value not in known:
            raise UsageError(f"unknown {option} {value!r}; use one of {', '.join(known)}")
    path = parse_path(source).absolute()
    found = find_source(path) if source else None
    records = found.read_records() if found else []
    near = explain_missing(path) if source and not path.exists() else ""
    return PreparationPlan(
        name="wider_attribute",
        settings=f"s{size}-{resize}",
        source_digest=partial(found.compute_digest, records) if found else None,
        earlier_digest=partial(found.compute_earlier_digest, records) if found else None,
        source=str(path) if source else "",
        missing_message=f"{path} does not hold WIDER Attribute{near}; {_WHERE}"
        if source
        else f"WIDER Attribute needs a source; {_WHERE}",
        size=size,
        resize=resize,
        class_names=CLASS_NAMES,
        group_names=rules.GROUP_NAMES,
        list_images=partial(_list_images, found, records),
        attributes=STORED,
        sort_by_id=True,
        apply_rules=partial(_apply_rules, group_rule, split_rule, split_seed),
    )


def _list_images(source: WiderSource | None, records: list[Record], max_bytes: int) -> Iterator[SourceImage]:
    assert source is not None  # without a source, no caller asks for its images
    for record, file in source.iterate_files(records, max_bytes):
        problem = record.problem or ("the image is absent" if file is None else file.find_problem(max_bytes))
        stamp, load = (file.stamp, file.load) if file else ("", bytes)
        example = None if problem else _make_example(record, stamp)
        yield SourceImage(escape_unprintable(record.file_name), f"{stamp}:{record}", load, example, problem)


def _make_example(record: Record, sha256: str) -> Example:
    counts = {"male": record.male, "female": record.female, "unspecified": record.unspecified}
    group = int(rules.assign_majority_groups(*(np.array(count) for count in counts.values())))
    label = CLASS_OF_SCENE[record.scene]
    attributes = {"scene": record.scene, **counts}
    return Example(record.file_name, record.split, label, group, attributes, sha256)


def _apply_rules(group_rule: str, split_rule: str, split_seed: int, table: ExampleTable) -> ExampleTable:
    """Returns the stored table with the groups and splits of the given rules."""
    persons = (table.attributes[name] for name in ("male", "female", "unspecified"))
    splits = rules.SPLIT_RULES[split_rule](
        table.splits, table.attributes["scene"], table.ids.tolist(), split_seed
    )
    return replace(table, groups=rules.GROUP_RULES[group_rule](*persons), splits=splits)
