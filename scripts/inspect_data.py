"""Shows a data set before anything is trained on it: a contact sheet for each split, and a chart of counts.

python scripts/inspect_data.py --config configs/rkd_adv.py:utkface [--config.data.source=PATH] [--output DIR]
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from fairkd_jax import cli
from fairkd_jax.data.datasheet import describe
from fairkd_jax.data.images import encode_image
from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.data.split import Split
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_bytes
from fairkd_jax.report.charts import count_chart, require_pyplot
from fairkd_jax.report.contact_sheet import contact_sheet
from fairkd_jax.training import resolved
from fairkd_jax.training.experiment import open_data

_CONFIG = config_flags.DEFINE_config_file("config", None, "File[:preset].", lock_config=True)
_OUTPUT = flags.DEFINE_string("output", "inspection", "Folder of the PNG files.")
_PER_CELL = flags.DEFINE_integer("images", 6, "Images of each class and group.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of which images are shown.", lower_bound=0)
flags.mark_flag_as_required("config")

UNKNOWN = "unknown"


def sheet_of(dataset: Dataset, split: Split, per_cell: int, seed: int) -> np.ndarray:
    """Some images of each class and group, drawn at random."""
    info, draw = dataset.info, np.random.default_rng(seed)
    cells = {}
    for label, class_name in enumerate(info.class_names):
        for group, group_name in enumerate((*info.group_names, UNKNOWN)):
            wanted = group if group < len(info.group_names) else -1
            rows = np.flatnonzero((split.labels == label) & (split.groups == wanted))
            if len(rows):
                shown = np.sort(draw.permutation(rows)[:per_cell])
                cells[class_name, group_name] = split.images(shown)
    rows_shown = [name for name in info.class_names if any(row == name for row, _ in cells)]
    columns = [name for name in (*info.group_names, UNKNOWN) if any(column == name for _, column in cells)]
    return np.asarray(contact_sheet(cells, rows_shown, columns, per_cell))


def main() -> None:
    require_pyplot()
    config = resolved(cli.load_config(_CONFIG))
    config.data.cache = "none"
    dataset, folder = open_data(config), Path(_OUTPUT.value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"{folder}: {reason}; name another folder with --output") from error
    info = dataset.info
    described, counts = describe(dataset, {}), {}
    for name in info.num_examples:
        split = dataset.split(name)
        part = described["splits"][name]
        counts[name] = np.vstack([part["counts"], part["unknown"]])
        path = folder / f"{info.name}-{name}.png"
        sheet = sheet_of(dataset, split, _PER_CELL.value, _SEED.value)
        write_bytes(path, encode_image(sheet, quality=0))
        print(path)
    groups: tuple[str, ...] = info.group_names
    if any(table[-1].any() for table in counts.values()):
        groups = (*groups, UNKNOWN)
    chart = folder / f"{info.name}-counts.png"
    count_chart(chart, {k: v[: len(groups)] for k, v in counts.items()}, groups, info.class_names, info.name)
    print(chart)


if __name__ == "__main__":
    cli.run(main)
