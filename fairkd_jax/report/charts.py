"""Charts as PNG files, drawn by matplotlib (extra `plots`)."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.errors import MissingExtraError
from fairkd_jax.files import write_bytes


def require_pyplot() -> Any:
    """Imports and returns `matplotlib.pyplot`.

    Returns:
      The module.

    Raises:
      UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("charts need", "plots", error) from error
    return pyplot


def draw_count_chart(
    path: Path, splits: Mapping[str, np.ndarray], groups: Sequence[str], classes: Sequence[str], title: str
) -> None:
    """Draws the number of images of each class and group, with a panel for each split.

    Args:
      path: Path of the PNG file, which is written completely or not at all.
      splits: Counts by the name of the split, int [G, C] each.
      groups: Names of the G rows.
      classes: Names of the C columns.
      title: Title above all panels.

    Raises:
      UsageError: matplotlib is not installed.
    """
    pyplot = require_pyplot()
    figure, panels = pyplot.subplots(
        1,
        len(splits),
        figsize=(1 + 4 * len(splits), 1.5 + 0.35 * len(classes)),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    places, height = np.arange(len(classes)), 0.8 / len(groups)
    for panel, (name, counts) in zip(panels[0], splits.items(), strict=True):
        for g, group in enumerate(groups):
            panel.barh(places + (g - (len(groups) - 1) / 2) * height, counts[g], height, label=group)
        panel.set(title=f"{name} ({counts.sum():,})", xlabel="images", yticks=places, yticklabels=classes)
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].invert_yaxis()
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(groups))
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    pyplot.close(figure)
    write_bytes(path, buffer.getvalue())
