"""Draws a data set before training: a contact sheet of each split, and a chart of the counts.

fairkd-inspect --config rkd_adv:utkface [--config.data.source=PATH] [--output DIR]
"""

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from fairkd_jax import cli, program_flags
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_bytes
from fairkd_jax.user_paths import parse_path

if TYPE_CHECKING:
    from fairkd_jax.data.pipeline import Dataset
    from fairkd_jax.data.split import Split

_CONFIG = program_flags.define_config_flag("Config, as NAME[:WORD,...] or FILE.py[:WORD,...].")
_OUTPUT = flags.DEFINE_string("output", "inspection", "Folder in which the program writes the PNG files.")
_PER_CELL = flags.DEFINE_integer(
    "images", 6, "Largest number of images of each class and group.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Random seed of the selection of images.", lower_bound=0)
flags.mark_flag_as_required("config")

UNKNOWN = "unknown"


def make_contact_sheet(dataset: "Dataset", split: "Split", per_cell: int, seed: int) -> np.ndarray:
    """Makes the contact sheet of a split from random images of each class and group.

    Args:
      dataset: Open data set.
      split: Split of the data set.
      per_cell: Largest number of images of each class and group.
      seed: Random seed of the selection.

    Returns:
      The sheet, uint8 [H, W, 3].
    """
    from fairkd_jax.report.contact_sheet import draw_contact_sheet

    info, draw = dataset.info, np.random.default_rng(seed)
    cells = {}
    for label, class_name in enumerate(info.class_names):
        for group, group_name in enumerate((*info.group_names, UNKNOWN)):
            wanted = group if group < len(info.group_names) else -1
            rows = np.flatnonzero((split.labels == label) & (split.groups == wanted))
            if len(rows):
                shown = np.sort(draw.permutation(rows)[:per_cell])
                cells[class_name, group_name] = split.read_images(shown)
    rows_shown = [name for name in info.class_names if any(row == name for row, _ in cells)]
    columns = [name for name in (*info.group_names, UNKNOWN) if any(column == name for _, column in cells)]
    return np.asarray(draw_contact_sheet(cells, rows_shown, columns, per_cell))


def main() -> None:
    """Writes the contact sheets and the chart of counts into the output folder."""
    from fairkd_jax.data.datasheet import describe_dataset
    from fairkd_jax.data.images import encode_image
    from fairkd_jax.recipe.sections import parse_data
    from fairkd_jax.recipe.values import normalize
    from fairkd_jax.report.charts import draw_count_chart, require_pyplot
    from fairkd_jax.runs.dataset import open_data

    require_pyplot()
    config = normalize(program_flags.load_config(_CONFIG))
    config.data.cache = "none"
    dataset, folder = open_data(parse_data(config.data)), parse_path(_OUTPUT.value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"{folder}: {reason}; name another folder with --output") from error
    info = dataset.info
    described, counts = describe_dataset(dataset, {}), {}
    for name in info.num_examples:
        split = dataset.split(name)
        part = described["splits"][name]
        counts[name] = np.vstack([part["counts"], part["unknown"]])
        path = folder / f"{info.name}-{name}.png"
        sheet = make_contact_sheet(dataset, split, _PER_CELL.value, _SEED.value)
        write_bytes(path, encode_image(sheet, quality=0))
        print(path)
    groups: tuple[str, ...] = info.group_names
    if any(table[-1].any() for table in counts.values()):
        groups = (*groups, UNKNOWN)
    chart = folder / f"{info.name}-counts.png"
    draw_count_chart(
        chart, {k: v[: len(groups)] for k, v in counts.items()}, groups, info.class_names, info.name
    )
    print(chart)


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main)
