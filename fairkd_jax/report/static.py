"""Figures of a report as SVG and PDF files for papers, drawn by matplotlib without a browser."""

import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_bytes
from fairkd_jax.report.blocks import Figure, Section
from fairkd_jax.report.charts import require_pyplot

_FORMATS = ("svg", "pdf")
_MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "cross": "P",
    "x": "X",
    "triangle-up": "^",
    "star": "*",
}
_LINES = {"dot": ":", "dash": "--"}
_PIXELS_PER_INCH = 100
_WIDTH = 7.0  # inches
_DARK = 0.6  # mean of red, green and blue below which a text is white
# Fonts are embedded as TrueType, which journals accept; the hash salt makes two files of one figure equal.
_STYLE = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "fairkd",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
}


def save_figures(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Writes each figure of a report as SVG and as PDF.

    Args:
      sections: Sections of the report.
      folder: Folder of the files; made where it does not exist.

    Returns:
      The paths of the files.

    Raises:
      UsageError: matplotlib is not installed, or the folder is a file.
      OSError: A file cannot be written.
    """
    pyplot = require_pyplot()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the figures")
    folder.mkdir(parents=True, exist_ok=True)
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    paths, missing = [], set[str]()
    for number, figure in enumerate(figures, 1):
        name = f"{number:02d}-{re.sub(r'[^a-z0-9]+', '-', figure.title.lower()).strip('-')[:60]}"
        with pyplot.rc_context(_STYLE), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drawn = _draw(pyplot, figure)
            for kind in _FORMATS:
                buffer = io.BytesIO()
                drawn.savefig(
                    buffer, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None}
                )
                paths.append(folder / f"{name}.{kind}")
                write_bytes(paths[-1], buffer.getvalue())
            pyplot.close(drawn)
        missing |= {str(warning.message) for warning in caught if "Glyph" in str(warning.message)}
    if missing:
        logging.warning(
            "matplotlib's font lacks %d letters of the names, the first: %s", len(missing), min(missing)
        )
    return paths


def _draw(pyplot: Any, figure: Figure) -> Any:
    """Draws one figure, with a panel for each pair of axes."""
    panels = sorted({trace.get("xaxis", "x") for trace in figure.traces})
    kinds = {"projection": "3d"} if figure.is_turnable else {}
    size = (_WIDTH, max(2.4, figure.height / _PIXELS_PER_INCH))
    drawn, axes = pyplot.subplots(
        1,
        max(1, len(panels)),
        figsize=size,
        layout="constrained",
        squeeze=False,
        sharey=True,
        subplot_kw=kinds,
    )
    for name, panel in zip(panels or ["x"], axes[0], strict=True):
        own = [trace for trace in figure.traces if trace.get("xaxis", "x") == name]
        for number, trace in enumerate(own):
            _TRACES[trace["type"]](panel, trace, number, sum(t["type"] == "bar" for t in own))
        if figure.is_turnable:
            _label_space(panel, figure.layout["scene"])
        else:
            _label(panel, figure.layout, name.removeprefix("x"))
    labelled: dict[str, Any] = {}
    for panel in axes[0]:
        for line, text in zip(*panel.get_legend_handles_labels(), strict=True):
            labelled.setdefault(text, line)
    if len(labelled) > 1:
        drawn.legend(labelled.values(), labelled, loc="outside upper left", ncols=2)
    return drawn


def _read(text: Any) -> str:
    """Returns the text that plotly's markup stands for."""
    return html.unescape(str(text))


def _to_numbers(values: Sequence[Any]) -> Any:
    return np.array([math.nan if value is None else value for value in values], float)


def _style(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the style of a line and its markers."""
    line, marker, mode = trace.get("line", {}), trace.get("marker", {}), trace.get("mode", "lines")
    style = {
        "color": line.get("color", marker.get("color")),
        "linewidth": line.get("width", 1.2),
        "linestyle": _LINES.get(line.get("dash", ""), "-") if "lines" in mode else "none",
        "label": _read(trace.get("name", "")) if trace.get("showlegend", True) else None,
    }
    if "markers" in mode:
        style["marker"] = _MARKERS.get(marker.get("symbol", "circle"), "o")
    return style


def _draw_scatter(panel: Any, trace: Mapping[str, Any], number: int, bars: int) -> None:
    del number, bars
    style, marker = _style(trace), trace.get("marker", {})
    if trace["x"] and isinstance(trace["x"][0], str):  # crosses on a heat map
        panel.plot(trace["x"], trace["y"], linestyle="none", marker="x", color="black")
        return
    x, y = _to_numbers(trace["x"]), _to_numbers(trace["y"])
    for axis in ("x", "y"):
        if error := trace.get(f"error_{axis}"):
            ends = [error.get("arrayminus", error["array"]), error["array"]]
            panel.errorbar(
                x,
                y,
                **{f"{axis}err": np.abs(np.array(ends))},
                fmt="none",
                ecolor=error["color"],
                elinewidth=0.8,
            )
    sizes = marker.get("size")
    if isinstance(sizes, list):  # a size and an opacity for each point
        panel.plot(x, y, **style, markersize=0)
        for place, size in enumerate(sizes):
            opacity = marker["opacity"][place]
            panel.plot(
                x[place],
                y[place],
                style.get("marker"),
                color=style["color"],
                markersize=size / 2,
                alpha=opacity,
            )
        return
    panel.plot(x, y, **style, markersize=4)


def _draw_bars(panel: Any, trace: Mapping[str, Any], number: int, bars: int) -> None:
    places, width = np.arange(len(trace["x"])), 0.8 / bars
    shift = (number - (bars - 1) / 2) * width
    panel.bar(
        places + shift,
        _to_numbers(trace["y"]),
        width,
        color=trace["marker"]["color"],
        label=_read(trace["name"]),
    )
    panel.set_xticks(places, [_read(text) for text in trace["x"]], rotation=45, ha="right")


def _draw_heat_map(panel: Any, trace: Mapping[str, Any], number: int, bars: int) -> None:
    del number, bars
    from matplotlib.colors import LinearSegmentedColormap

    scale = trace["colorscale"]
    colours = "cividis_r" if scale == "Cividis" else LinearSegmentedColormap.from_list("scale", scale)
    values = np.array([_to_numbers(row) for row in trace["z"]])
    shown = panel.imshow(values, cmap=colours, vmin=trace.get("zmin"), vmax=trace.get("zmax"), aspect="auto")
    panel.set_xticks(range(len(trace["x"])), [_read(text) for text in trace["x"]], rotation=45, ha="right")
    panel.set_yticks(range(len(trace["y"])), [_read(text) for text in trace["y"]])
    panel.grid(False)
    unit = trace.get("colorbar", {}).get("title", {}).get("text", "")
    panel.figure.colorbar(shown, ax=panel, label=unit)
    for row, texts in enumerate(trace.get("text", ())):
        for column, text in enumerate(texts):
            is_dark = np.mean(shown.to_rgba(values[row, column])[:3]) < _DARK
            colour = "white" if is_dark else "black"
            panel.text(column, row, text, color=colour, fontsize=7, ha="center", va="center")


def _draw_space(panel: Any, trace: Mapping[str, Any], number: int, bars: int) -> None:
    del number, bars
    panel.plot(
        *(_to_numbers(trace[axis]) for axis in "xyz"),
        color=trace["line"]["color"],
        marker="o",
        markersize=3,
        label=_read(trace["name"]),
    )


_TRACES = {
    "scatter": _draw_scatter,
    "bar": _draw_bars,
    "heatmap": _draw_heat_map,
    "scatter3d": _draw_space,
}


def _label(panel: Any, layout: Mapping[str, Any], suffix: str) -> None:
    """Sets titles, ticks and ranges of both axes."""
    for axis in "xy":
        own = layout.get(f"{axis}axis{suffix}", {})
        if title := own.get("title", {}).get("text"):
            panel.set(**{f"{axis}label": _read(title)})
        if "ticktext" in own:
            set_ticks = panel.set_xticks if axis == "x" else panel.set_yticks
            set_ticks(own["tickvals"], [_read(text) for text in own["ticktext"]])
        if "range" in own:
            panel.set(**{f"{axis}lim": own["range"]})


def _label_space(panel: Any, scene: Mapping[str, Any]) -> None:
    for axis in "xyz":
        panel.set(**{f"{axis}label": _read(scene[f"{axis}axis"]["title"]["text"])})
