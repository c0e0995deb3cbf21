"""Charts as PNG files, drawn by matplotlib (extra `plots`)."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.errors import MissingExtraError
from fairkd_jax.files import write_bytes
from fairkd_jax.report.curves import CURVES, Curves


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
    _save(figure, path)


def draw_training_curves(path: Path, curves: Mapping[str, Curves], title: str) -> None:
    """Draws loss, accuracy, disparity and the adversary's advantage over the steps of one or more trainings.

    Args:
      path: Path of the PNG file, which is written completely or not at all.
      curves: For each model its logged numbers: steps and values by name, see `read_curves`. A number that
        no model has logged gets no panel.
      title: Title above all panels.

    Raises:
      UsageError: matplotlib is not installed.
      OSError: The file cannot be written.
    """
    pyplot = require_pyplot()
    shown = [name for name in CURVES if any(name in own for own in curves.values())]
    figure, panels = pyplot.subplots(
        1, max(1, len(shown)), figsize=(4 * max(1, len(shown)), 3.2), layout="constrained", squeeze=False
    )
    for panel, name in zip(panels[0], shown, strict=False):
        for model, own in curves.items():
            if name in own:
                panel.plot(*own[name], label=model, linewidth=1.2)
        panel.set(title=CURVES[name], xlabel="step")
        panel.grid(alpha=0.3)
    if shown:
        labelled = {
            label: line
            for panel in panels[0]
            for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(labelled.values(), labelled, loc="outside lower center", ncols=len(labelled))
    figure.suptitle(title)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Writes a figure as PNG, and closes it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    require_pyplot().close(figure)
    write_bytes(path, buffer.getvalue())
