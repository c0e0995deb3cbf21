"""Prepares a data set and prints what it holds: python scripts/prepare_data.py utkface --source PATH."""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.data.catalog import effective_options
from fairkd_jax.data.datasheet import describe, markdown, table
from fairkd_jax.data.pipeline import DATASETS, Dataset, default_directory, open_dataset
from fairkd_jax.data.plan import SPLITS
from fairkd_jax.data.wider_attribute.rules import GROUP_RULES, SPLIT_RULES
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.report.tables import aligned

# `data.size` of the presets in configs/base.py: what is prepared here is found by a training there.
PRESET_SIZES = {"digits": 32, "utkface": 80, "wider_attribute": 256, "manifest": 80}


def main(arguments: list[str] | None = None) -> int:
    """Prepares what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description="Prepare a data set as ArrayRecord files.")
    parser.add_argument("name", help=f"one of: {', '.join(DATASETS)}")
    parser.add_argument("--source", default="", help="archive, folder or manifest that holds the images")
    parser.add_argument(
        "--directory", default="", help=f"root of prepared data (default: {default_directory()})"
    )
    parser.add_argument(
        "--size",
        type=int,
        help="side of the stored images in pixels (default: that of the preset in configs/)",
    )
    parser.add_argument("--resize", default="squash", help="squash (default) or pad")
    parser.add_argument(
        "--quality", type=int, default=0, help="of the stored images as JPEG, 1 to 100; 0 (default): PNG"
    )
    parser.add_argument(
        "--max_bad_fraction", type=float, default=0.01, help="share of bad files that is borne"
    )
    for option in ("target", "protected"):
        parser.add_argument(f"--{option}", help="utkface: age_group, gender or race")
    for option in ("class_names", "group_names"):
        parser.add_argument(f"--{option}", nargs="+", help="manifest: the names in their order")
    for option, known in (("group_rule", GROUP_RULES), ("split_rule", SPLIT_RULES)):
        parser.add_argument(f"--{option}", help=f"wider_attribute: {' or '.join(known)}")
    parser.add_argument("--split_seed", type=int, help="wider_attribute, capstone")
    for option, kind in (("skew", float), ("seed", int), ("noise", float)):
        parser.add_argument(f"--{option}", type=kind, help="digits")
    options = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    options.setdefault("size", PRESET_SIZES.get(options["name"], 0))
    fraction, seed = options["max_bad_fraction"], options.get("seed", 0)
    if not 0 <= fraction <= 1:
        parser.error(f"--max_bad_fraction {fraction} is not in [0, 1]")
    if not 0 <= options.get("split_seed", 0) < 2**32:
        parser.error(f"--split_seed {options['split_seed']} is not from 0 to 2**32 - 1")
    if not 0 <= seed < 2**32:
        parser.error(f"--seed {seed} is not from 0 to 2**32 - 1")
    try:
        dataset = open_dataset(options.pop("name"), cache="none", **options)
        described = describe(dataset, effective_options(dataset.info.name, options))
        check_records(dataset)
    except UsageError as error:
        print(f"prepare_data.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a file or a folder of the source that may not be read
        print(f"prepare_data.py: {error.filename or options['source']}: {error.strerror}", file=sys.stderr)
        return 2
    folder = Path(dataset.info.directory)
    beside = ", with datasheet.md and counts.json"
    try:
        write_text(folder / "counts.json", json.dumps(described, indent=1) + "\n")
        write_text(folder / "datasheet.md", markdown(described))
    except OSError as error:  # data that others have prepared, say
        beside = f", without datasheet.md and counts.json ({error.strerror})"
    print(_summary(described, folder, beside))
    absent = [name for name in SPLITS if name not in described["splits"]]
    if absent:
        print(f"prepare_data.py: there are no images in {' and '.join(absent)}", file=sys.stderr)
    return 0


def check_records(dataset: Dataset) -> None:
    """Reads an image of each end of each split: files that are cut short show there.

    Raises:
      UsageError: the prepared data are damaged.
    """
    for name in dataset.info.num_examples:
        split = dataset.split(name)
        split.images(np.array([0, len(split) - 1]))


def _summary(described: dict[str, Any], folder: Path, beside: str) -> str:
    head = f"{described['dataset']}, {described['size']} px{beside}: {folder}"
    lines = [head]
    for name, part in described["splits"].items():
        rows = [row for row in table(described, name) if row[-1] != "0"]
        lines += ["", f"{name}: {part['images']}", aligned(rows)]
    skipped = [f"  {item['name']}: {item['reason']}" for item in described["skipped"]]
    return "\n".join([*lines, "", f"skipped: {len(skipped)}", *skipped])


if __name__ == "__main__":
    sys.exit(main())
