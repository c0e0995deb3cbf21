"""Descriptions of a prepared data set, as a table, a Markdown datasheet and JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairkd_jax.data.copies import CopySet, describe_copies
from fairkd_jax.data.layout import read_report
from fairkd_jax.data.preparation_plan import escape_unprintable

if TYPE_CHECKING:  # a report reads datasheets without JAX
    from fairkd_jax.data.pipeline import Dataset, DatasetInfo
    from fairkd_jax.data.split import Split


def describe_dataset(dataset: "Dataset", options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of the datasheet, ready for JSON.

    Args:
      dataset: Open data set.
      options: The data set's own options, with which it was opened (for example its rules).

    Returns:
      A dict with the keys dataset, size (pixels), options, classes, groups, splits, source, prepared_at (UTC)
      and skipped (a list of names and reasons). `splits` maps a name to images (their number), counts [G][C]
      of known group, unknown [C] and digest. Where persons were counted, a split also has persons,
      images_with_a_tie and images_without_specified_persons. `copies` has a summary of the equal images, and
      sets, which lists them.

    Raises:
      UsageError: The prepared data are damaged.
    """
    info, report = dataset.info, read_report(Path(dataset.info.directory))
    return {
        "dataset": info.name,
        "size": info.size,
        "options": dict(options),
        "classes": list(info.class_names),
        "groups": list(info.group_names),
        "splits": {name: _describe_split(dataset.split(name)) for name in info.num_examples},
        # The images of a manifest are told by their contents, so that its path is its origin alone.
        "source": report["source"] or report.get("origin", ""),
        "prepared_at": report["prepared_at"],
        "skipped": report["skipped"],
        "copies": {
            "summary": describe_copies(info.copies),
            "sets": [_describe_copy(copy, info) for copy in info.copies],
        },
    }


def _describe_copy(copy: CopySet, info: "DatasetInfo") -> list[dict[str, Any]]:
    """Describes each of some equal images: id, split, label, group, and whether the image stays."""
    rows = zip(copy.ids, copy.splits, copy.labels, copy.groups, copy.is_kept, strict=True)
    return [
        {
            "id": escape_unprintable(name),
            "split": split,
            "label": info.class_names[label],
            "group": info.group_names[group] if group >= 0 else None,
            "kept": stays,
        }
        for name, split, label, group, stays in rows
    ]


def _describe_split(split: "Split") -> dict[str, Any]:
    unknown = np.bincount(split.labels[split.groups < 0], minlength=split.counts.shape[1])
    described = {
        "images": len(split),
        "counts": split.counts.tolist(),
        "unknown": unknown.tolist(),
        "digest": split.compute_digest(),
    }
    if {"male", "female", "unspecified"} <= split.attributes.keys():
        male, female = split.attributes["male"], split.attributes["female"]
        described["persons"] = {
            name: int(split.attributes[name].sum()) for name in ("male", "female", "unspecified")
        }
        described["images_with_a_tie"] = int(np.sum((male == female) & (male > 0)))
        described["images_without_specified_persons"] = int(np.sum(male + female == 0))
    return described


def make_count_table(description: Mapping[str, Any], split: str) -> list[list[str]]:
    """Makes the table of image counts of a split.

    Args:
      description: Result of `describe_dataset`.
      split: Name of the split.

    Returns:
      A header and one row for each class: name, number of images of each group and of unknown group, total.
    """
    part = description["splits"][split]
    rows = [["class", *description["groups"], "unknown", "total"]]
    for label, name in enumerate(description["classes"]):
        cells = [*(counts[label] for counts in part["counts"]), part["unknown"][label]]
        rows.append([name, *map(str, cells), str(sum(cells))])
    return rows


def format_datasheet(description: Mapping[str, Any]) -> str:
    """Formats a description as a datasheet in Markdown.

    Args:
      description: Result of `describe_dataset`.
    """
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
        head, *rows = make_count_table(description, name)
        lines += ["", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", f"## Left out: {len(description['skipped'])}", ""]
    lines += [f"- {item['name']}: {item['reason']}" for item in description["skipped"]]
    lines += ["", "## Equal images", "", description["copies"]["summary"] or "None is known.", ""]
    lines += [f"- {format_equal_images(images)}" for images in description["copies"]["sets"]]
    return "\n".join(lines).rstrip() + "\n"


def format_equal_images(images: Sequence[Mapping[str, Any]]) -> str:
    """Formats some equal images in one line, with what each was taken for.

    Args:
      images: One of the sets of equal images of a description, see `describe_dataset`.
    """
    meanings = {(image["label"], image["group"]) for image in images}
    names = [
        f"{image['id']} ({image['split']}{'' if image['kept'] else ', left out'}: {image['label']},"
        f" {image['group'] or 'unknown group'})"
        for image in images
    ]
    return f"{'contradictory: ' if len(meanings) > 1 else ''}{' = '.join(names)}"
