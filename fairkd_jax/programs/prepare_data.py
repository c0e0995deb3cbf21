"""Prepares a data set and prints its counts: fairkd-prepare utkface --source PATH."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairkd_jax.cli import OneLineParser, format_os_error, make_one_line
from fairkd_jax.data.catalog import DATASETS, complete_options
from fairkd_jax.data.layout import DATASHEET_NAME, DESCRIPTION_NAME
from fairkd_jax.data.preparation_plan import SPLITS
from fairkd_jax.data.wider_attribute.rules import GROUP_RULES, SPLIT_RULES
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.report.text_table import align_rows
from fairkd_jax.user_paths import parse_path

if TYPE_CHECKING:
    from fairkd_jax.data.pipeline import Dataset

# `data.size` of the presets in fairkd_jax/configs. A training with the same size finds the prepared data.
PRESET_SIZES = {"digits": 32, "utkface": 80, "wider_attribute": 256, "manifest": 80}


def _make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description="Prepares a data set as ArrayRecord files.")
    parser.add_argument("name", help=f"Name of the data set: {', '.join(DATASETS)}.")
    parser.add_argument(
        "--source", default="", help="Path of the archive, folder or manifest that holds the images."
    )
    parser.add_argument(
        "--directory",
        default="",
        help="Root folder of all prepared data (default: $FAIRKD_DATA, or ~/.cache/fairkd_jax/datasets).",
    )
    parser.add_argument(
        "--size",
        type=int,
        help="Side of the stored images in pixels (default: the size in the preset of the data set).",
    )
    parser.add_argument(
        "--resize",
        default="squash",
        help="Resize mode of the images: squash (default) stretches, pad keeps the aspect ratio.",
    )
    parser.add_argument(
        "--quality",
        type=int,
        default=0,
        help="JPEG quality of the stored images, 1 to 100; 0 (default) stores PNG.",
    )
    parser.add_argument(
        "--max_bad_fraction",
        type=float,
        default=0.01,
        help="Largest share of files that may be malformed or unreadable (default: 0.01).",
    )
    parser.add_argument(
        "--max_file_mib",
        type=float,
        default=32.0,
        help="Largest size of an image file in MiB; a larger file is skipped (default: 32).",
    )
    parser.add_argument(
        "--allow_duplicates",
        action="store_true",
        help="Whether equal images may be in two splits.",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="Whether to read source and prepared files again, and to compare the latter with their hashes.",
    )
    _add_data_options(parser)
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that belong to a single data set."""
    for option, role in (("target", "labels"), ("protected", "groups")):
        parser.add_argument(
            f"--{option}", help=f"Attribute of utkface that gives the {role}: age_group, gender or race."
        )
    for option, kind in (("class_names", "classes"), ("group_names", "groups")):
        parser.add_argument(
            f"--{option}",
            nargs="+",
            help=f"Names of a manifest's {kind} in order (default: sorted, 2 before 10).",
        )
    parser.add_argument(
        "--missing", nargs="+", help="Texts of a manifest that mean a missing value, as an empty cell does."
    )
    for option, result, rules in (("group_rule", "group", GROUP_RULES), ("split_rule", "split", SPLIT_RULES)):
        parser.add_argument(
            f"--{option}",
            help=f"Rule of wider_attribute that gives each image its {result}: {' or '.join(rules)}.",
        )
    parser.add_argument(
        "--split_seed", type=int, help="Random seed of the split rule half_test of wider_attribute."
    )
    parser.add_argument(
        "--skew",
        type=float,
        help="Share of the digits of a class with the class's own tint, in train and val (default: 0.9).",
    )
    parser.add_argument("--seed", type=int, help="Random seed of the tints and the noise of digits.")
    parser.add_argument(
        "--noise", type=float, help="Standard deviation of the noise on the grey values of digits, 0 or more."
    )


def _check_ranges(parser: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    if not 0 <= (fraction := options["max_bad_fraction"]) <= 1:
        parser.error(f"--max_bad_fraction {fraction} is out of range; use 0 to 1")
    for name in ("split_seed", "seed"):
        if not 0 <= (seed := options.get(name, 0)) < 2**32:
            parser.error(f"--{name} {seed} is out of range; use 0 to 2**32 - 1")


def main(arguments: list[str] | None = None) -> int:
    """Prepares the data set that the command line names.

    Args:
      arguments: Command-line arguments; None reads `sys.argv`.

    Returns:
      Exit code: 0; 2 after an error that the user can correct, such as a split without images; 1 after an
      error of the system.
    """
    parser = _make_parser()
    options = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    options.setdefault("size", PRESET_SIZES.get(options["name"], 0))
    _check_ranges(parser, options)
    from fairkd_jax.data.datasheet import describe_dataset, format_datasheet
    from fairkd_jax.data.file_hashes import forget_hashes
    from fairkd_jax.data.layout import DAMAGED
    from fairkd_jax.data.pipeline import open_dataset
    from fairkd_jax.digests import check_changed_files

    verify = options.pop("verify")
    if verify and options["source"]:
        forget_hashes(parse_path(options["source"]).absolute())
    try:
        dataset = open_dataset(options.pop("name"), cache="none", **options)
        described = describe_dataset(dataset, complete_options(dataset.info.name, options))
        check_records(dataset)
        if verify:
            count = check_changed_files(Path(dataset.info.directory), DAMAGED, again=True)
            if count is None:
                raise UsageError(f"{dataset.info.directory} has no hashes: an earlier version prepared it")
            print(f"verified: {count} files")
    except UsageError as error:
        print(f"{parser.prog}: {make_one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:  # for example, a full disk, or no permission to read the source
        print(f"{parser.prog}: {format_os_error(error)}", file=sys.stderr)
        return 1
    folder = Path(dataset.info.directory)
    note = f", with {DATASHEET_NAME} and {DESCRIPTION_NAME}"
    try:
        write_text(folder / DESCRIPTION_NAME, json.dumps(described, indent=1) + "\n")
        write_text(folder / DATASHEET_NAME, format_datasheet(described))
    except OSError as error:  # for example, another user has prepared the data
        note = f", without {DATASHEET_NAME} and {DESCRIPTION_NAME} ({error.strerror})"
    print(_format_summary(described, folder, note))
    absent = [name for name in SPLITS if name not in described["splits"]]
    if absent:
        print(
            f"{parser.prog}: there are no images in {' and '.join(absent)}, which a run needs",
            file=sys.stderr,
        )
        return 2
    return 0


def check_records(dataset: "Dataset") -> None:
    """Reads the first and the last image of each split, which finds files that are cut short.

    Args:
      dataset: Open data set.

    Raises:
      UsageError: The prepared data are damaged.
    """
    for name in dataset.info.num_examples:
        split = dataset.split(name)
        split.read_images(np.array([0, len(split) - 1]))


def _format_summary(described: dict[str, Any], folder: Path, note: str) -> str:
    from fairkd_jax.data.datasheet import make_count_table

    head = f"{described['dataset']}, {described['size']} px{note}: {folder}"
    lines = [head]
    for name, part in described["splits"].items():
        rows = [row for row in make_count_table(described, name) if row[-1] != "0"]
        lines += ["", f"{name}: {part['images']}", align_rows(rows)]
    skipped = [f"  {item['name']}: {item['reason']}" for item in described["skipped"]]
    if equal := described["copies"]["summary"]:
        lines += ["", equal]
    return "\n".join([*lines, "", f"skipped: {len(skipped)}", *skipped])
