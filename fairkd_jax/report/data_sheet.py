"""The datasheet of a run's prepared data, as `fairkd-prepare` has left it beside them.

Nothing here imports JAX or opens the data.
"""

import contextlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairkd_jax.data.catalog import DATASETS, complete_options
from fairkd_jax.data.datasheet import format_equal_images
from fairkd_jax.data.layout import DESCRIPTION_NAME, get_default_directory
from fairkd_jax.report.blocks import Block, Table, Text
from fairkd_jax.runs.folder import RunConfig

_SHOWN = 50  # files that were left out, and sets of equal images
# Key of a `data` section that is an option of `fairkd-prepare` -> its default; None where it depends.
_OPTIONS = {
    "source": "",
    "directory": "",
    "size": None,
    "resize": "squash",
    "quality": 0,
    "max_bad_fraction": 0.01,
    "max_file_mib": 32.0,
}


def read_data_sheet(saved: RunConfig) -> dict[str, Any]:
    """Reads the datasheet of a run's data, where prepared data and datasheet are still there.

    Args:
      saved: The content of the run's `config.json`.

    Returns:
      `command`, which makes the datasheet, and `sheet`, None where there is none. The sheet is the result of
      `describe_dataset` with its `folder`. It has at most 50 of the files that were left out and of the sets
      of equal images; `num_skipped` and `num_copies` are their numbers.
    """
    data, sheets = saved.config["data"], []
    root = Path(data.get("directory") or get_default_directory()).expanduser() / data["name"]
    for path in sorted(root.glob(f"*/*/{DESCRIPTION_NAME}")):
        # Datasheets of other data may be damaged, or of another version.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            sheet = json.loads(path.read_text(encoding="utf-8"))
            if _describes(sheet, saved):
                sheets.append(_shorten(sheet) | {"folder": str(path.parent)})
    latest = max(sheets, key=lambda sheet: sheet["prepared_at"], default=None)
    return {"command": _make_command(data), "sheet": latest}


def _describes(sheet: Mapping[str, Any], saved: RunConfig) -> bool:
    """Returns whether a datasheet is of the data of a run: by the size of the images and each split's digest.

    The patch of a control experiment changes the digests but no datasheet: there the numbers of images count.
    """
    data, info = saved.config["data"], saved.data_info
    key, of_run = ("images", "num_examples") if data.get("control") == "patch" else ("digest", "digests")
    of_sheet = {name: part[key] for name, part in sheet["splits"].items()}
    return sheet["size"] == data["size"] and of_sheet == info[of_run]


def _shorten(sheet: Mapping[str, Any]) -> dict[str, Any]:
    skipped, copies = sheet["skipped"], sheet["copies"]
    return {
        **sheet,
        "num_skipped": len(skipped),
        "skipped": skipped[:_SHOWN],
        "num_copies": len(copies["sets"]),
        "copies": {**copies, "sets": copies["sets"][:_SHOWN]},
    }


def _make_command(data: Mapping[str, Any]) -> str:
    """Makes the command that prepares the data of a `data` section where needed, with their datasheet."""
    name = data["name"]
    options = {key: data[key] for key, default in _OPTIONS.items() if data.get(key, default) != default}
    if name in DATASETS:
        own, defaults = complete_options(name, data.get(name, {})), complete_options(name, {})
        options |= {
            key: value for key, value in own.items() if _list_words(value) != _list_words(defaults[key])
        }
    words = ["fairkd-prepare", name]
    for key, value in options.items():
        words += [f"--{key}", *_list_words(value)]
    return shlex.join([*words, *["--allow_duplicates"] * bool(data.get("allow_duplicates"))])


def _list_words(value: Any) -> list[str]:
    """Returns the words of an option's value on a command line."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def show_data_sheet(found: Mapping[str, Any]) -> list[Block]:
    """Shows the datasheet, or the command that makes it.

    Args:
      found: Result of `read_data_sheet`.
    """
    sheet = found["sheet"]
    if sheet is None:
        text = f"There is no datasheet beside the prepared data of this run; `{found['command']}` makes it."
        return [Text(text, "missing")]
    options = ", ".join(f"{key} = {' '.join(_list_words(value))}" for key, value in sheet["options"].items())
    rows = [
        ["data set", sheet["dataset"]],
        ["source", sheet["source"] or "the package"],
        ["prepared", sheet["prepared_at"]],
        ["folder", sheet["folder"]],
        ["side of the images", f"{sheet['size']} pixels"],
        ["options", options or "none"],
        *([name, _describe_split(part)] for name, part in sheet["splits"].items()),
        ["left out", f"{sheet['num_skipped']:,} files"],
        ["equal images", sheet["copies"]["summary"] or "none is known"],
    ]
    blocks: list[Block] = [Table("Datasheet", ["item", "value"], rows, is_folded=True, is_prose=True)]
    skipped = [[item["name"], item["reason"]] for item in sheet["skipped"]]
    copies = [[str(n), format_equal_images(own)] for n, own in enumerate(sheet["copies"]["sets"], 1)]
    for title, head, own, number in (
        ("Files that were left out", ["file", "reason"], skipped, sheet["num_skipped"]),
        ("Equal images", ["set", "images"], copies, sheet["num_copies"]),
    ):
        if own:
            shown = f"{number:,}" if number == len(own) else f"the first {len(own)} of {number:,}"
            blocks.append(Table(f"{title}: {shown}", head, own, is_folded=True, is_prose=True))
    return blocks


def _describe_split(part: Mapping[str, Any]) -> str:
    text = f"{part['images']:,} images, {sum(part['unknown']):,} of an unknown group; hash {part['digest']}"
    if "persons" not in part:
        return text
    persons = ", ".join(f"{count:,} {kind}" for kind, count in part["persons"].items())
    return (
        f"{text}; persons: {persons}; {part['images_with_a_tie']:,} images with as many male as female,"
        f" {part['images_without_specified_persons']:,} with none specified"
    )
