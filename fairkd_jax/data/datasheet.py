"""What a prepared data set holds, for people (a table, a datasheet) and for programs (JSON)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.data.layout import read_report
from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.data.split import Split


def describe(dataset: Dataset, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the datasheet says, ready for JSON.

    Args:
      dataset: an open data set.
      options: the data set's own, that it was opened with, such as its rules.

    Returns:
      dataset, size, options, classes, groups, splits (by name: images, counts [G][C] of known group, unknown
      [C], digest of ids, labels and groups, and, where persons were counted, why a group is unknown), source,
      prepared_at and skipped (names and reasons).
    """
    info, report = dataset.info, read_report(Path(dataset.info.directory))
    return {
        "dataset": info.name,
        "size": info.size,
        "options": dict(options),
        "classes": list(info.class_names),
        "groups": list(info.group_names),
        "splits": {name: _describe_split(dataset.split(name)) for name in info.num_examples},
        "source": report["source"],
        "prepared_at": report["prepared_at"],
        "skipped": report["skipped"],
    }


def _describe_split(split: Split) -> dict[str, Any]:
    unknown = np.bincount(split.labels[split.groups < 0], minlength=split.counts.shape[1])
    described = {
        "images": len(split),
        "counts": split.counts.tolist(),
        "unknown": unknown.tolist(),
        "digest": split.digest(),
    }
    if {"male", "female", "unspecified"} <= split.attributes.keys():
        male, female = split.attributes["male"], split.attributes["female"]
        described["persons"] = {
            name: int(split.attributes[name].sum()) for name in ("male", "female", "unspecified")
        }
        described["images_with_a_tie"] = int(np.sum((male == female) & (male > 0)))
        described["images_without_specified_persons"] = int(np.sum(male + female == 0))
    return described


def table(description: Mapping[str, Any], split: str) -> list[list[str]]:
    """Rows of a split: a class each, its images by group, of unknown group, and in all."""
    part = description["splits"][split]
    rows = [["class", *description["groups"], "unknown", "total"]]
    for label, name in enumerate(description["classes"]):
        cells = [*(counts[label] for counts in part["counts"]), part["unknown"][label]]
        rows.append([name, *map(str, cells), str(sum(cells))])
    return rows


def markdown(description: Mapping[str, Any]) -> str:
    """The datasheet."""
    options = ", ".join(f"{key} = {value}" for key, value in description["options"].items())
    lines = [
        f"# {description['dataset']}",
        "",
        f"Prepared {description['prepared_at']} from `{description['source'] or 'the package'}` at"
        f" {description['size']} x {description['size']} pixels{f' ({options})' if options else ''}.",
    ]
    for name, part in description["splits"].items():
        lines += ["", f"## {name}: {part['images']} images", "", f"Hash of the split: `{part['digest']}`."]
        if "persons" in part:
            persons = ", ".join(f"{count} {kind}" for kind, count in part["persons"].items())
            lines.append(
                f"Persons: {persons}. Images with as many male as female: {part['images_with_a_tie']};"
                f" with none specified: {part['images_without_specified_persons']}."
            )
        head, *rows = table(description, name)
        lines += ["", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", f"## Left out: {len(description['skipped'])}", ""]
    lines += [f"- {item['name']}: {item['reason']}" for item in description["skipped"]]
    return "\n".join(lines).rstrip() + "\n"
