"""The figure of a confusion matrix."""

import math
from collections.abc import Sequence

from fairkd_jax.report.blocks import Figure, Table
from fairkd_jax.report.plots import escape_markup, make_labels, make_matrix_layout

_SEQUENTIAL = [[0.0, "#f2f2f2"], [1.0, "#0072b2"]]
_MOST_TEXTS = 20  # classes; with more of them, texts in the cells cannot be read


def draw_confusion(title: str, alt: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    """Draws a confusion matrix: of the images of each label (down), the share of each prediction (across).

    Args:
      title: Title.
      alt: What the figure shows.
      names: Names of the C classes.
      counts: Images by label and prediction, [C][C].
    """
    percents = [[100 * n / sum(row) if sum(row) else math.nan for n in row] for row in counts]
    labels = make_labels(names)
    trace = {
        "type": "heatmap",
        "z": percents,
        "x": labels,
        "y": labels,
        "zmin": 0,
        "zmax": 100,
        "colorscale": _SEQUENTIAL,
        "customdata": [list(row) for row in counts],
        "hovertemplate": "label %{y}, predicted %{x}: %{z:.1f} % (%{customdata} images)",
        "name": escape_markup(title),
        "colorbar": {"title": {"text": "%"}},
    }
    if len(names) <= _MOST_TEXTS:
        # A cell without images stays empty: the eye finds the others.
        trace["text"] = [
            [f"{value:.0f}" if n else "" for value, n in zip(*rows, strict=True)]
            for rows in zip(percents, counts, strict=True)
        ]
        trace["texttemplate"] = "%{text}"
    cells = [
        [
            name,
            *("n/a" if math.isnan(value) else f"{value:.1f} % ({n})" for value, n in zip(*rows, strict=True)),
        ]
        for name, *rows in zip(names, percents, counts, strict=True)
    ]
    caption = f"{title}: share of the label's images, and their number (rows: label; columns: predicted)"
    table = Table(caption, ["label", *names], cells)
    return Figure(title, alt, [trace], make_matrix_layout(), table, height=200 + 22 * len(names))
