"""Figures of a report, as traces of plotly, each with the table of its values."""

from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.report.blocks import Figure, Table
from fairkd_jax.report.tables import format_number

# Okabe and Ito's colours, told apart by colour-blind people, on white and on black.
COLOURS = {"teacher": "#8c8c8c", "baseline": "#d55e00", "student": "#009e73"}
SYMBOLS = {"teacher": "square", "baseline": "circle", "student": "diamond"}
DIVERGING = [[0.0, "#d55e00"], [0.5, "#f2f2f2"], [1.0, "#0072b2"]]
MARGIN = {"l": 60, "r": 20, "t": 30, "b": 50}
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
Rates = Mapping[str, Sequence[Sequence[float | None]]]


def escape_markup(text: str) -> str:
    """Returns a name that plotly shows as it is: plotly reads some HTML elements in texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, length: int = 24) -> str:
    """Shortens a name for an axis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def make_labels(names: Sequence[str]) -> list[str]:
    """Makes the labels of an axis from names, which stay different when they are shortened."""
    short = [shorten(name) for name in names]
    labels = [text if short.count(text) == 1 else f"{text} ({place})" for place, text in enumerate(short, 1)]
    return [escape_markup(label) for label in labels]


def draw_forest(
    title: str,
    alt: str,
    rows: Sequence[str],
    gaps: Mapping[str, tuple[Sequence[float | None], Sequence[float | None], Sequence[float | None]]],
    titles: Mapping[str, str],
) -> Figure:
    """Draws values with their intervals, a row for each class and a mark for each model.

    Args:
      title: Title, which names the value.
      alt: What the figure shows.
      rows: Names of the C classes.
      gaps: Values, lower and upper ends of each model, [C] each; None where there is none.
      titles: Title of each model.
    """
    traces, places = [], list(range(len(rows)))
    step = 0.6 / max(1, len(gaps))
    for number, (model, (values, low, high)) in enumerate(gaps.items()):
        usable = [c for c in places if None not in (values[c], low[c], high[c])]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": titles[model],
                "x": [values[c] for c in usable],
                "y": [c + (number - (len(gaps) - 1) / 2) * step for c in usable],
                "text": [escape_markup(rows[c]) for c in usable],
                "hovertemplate": "%{text}: %{x:.3f}",
                "marker": {"color": COLOURS[model], "symbol": SYMBOLS[model], "size": 9},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_subtract(high[c], values[c]) for c in usable],
                    "arrayminus": [_subtract(values[c], low[c]) for c in usable],
                    "color": COLOURS[model],
                },
            }
        )
    layout = {
        "margin": MARGIN,
        "legend": LEGEND,
        "xaxis": {"zeroline": True, "title": {"text": escape_markup(title)}},
        "yaxis": {
            "tickvals": places,
            "ticktext": make_labels(rows),
            "range": [len(rows) - 0.5, -0.5],
            "zeroline": False,
            "automargin": True,
        },
    }
    head = ["class", *(f"{titles[model]}: {what}" for model in gaps for what in ("value", "from", "to"))]
    cells = [
        [name, *(format_number(column[c], 3) for columns in gaps.values() for column in columns)]
        for c, name in enumerate(rows)
    ]
    return Figure(title, alt, traces, layout, Table(title, head, cells), height=120 + 40 * len(rows))


def _subtract(first: float | None, second: float | None) -> float:
    return (first or 0.0) - (second or 0.0)


def draw_slopes(
    title: str,
    alt: str,
    classes: Sequence[str],
    groups: Sequence[str],
    recalls: Rates,
    titles: Mapping[str, str],
) -> Figure:
    """Draws the recall of each class from group to group, in a panel for each model.

    Args:
      title: Title.
      alt: What the figure shows.
      classes: Names of the C classes.
      groups: Names of the G groups.
      recalls: Recalls of each model, [G][C]; None where there is none.
      titles: Title of each model.
    """
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "margin": MARGIN,
        "legend": LEGEND,
        "grid": {"rows": 1, "columns": len(recalls)},
    }
    for number, (model, values) in enumerate(recalls.items(), 1):
        x, y, text = [], [], []
        for c, name in enumerate(classes):
            x += [*range(len(groups)), None]
            y += [*(values[g][c] for g in range(len(groups))), None]
            text += [escape_markup(name)] * (len(groups) + 1)
        suffix = "" if number == 1 else str(number)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": titles[model],
                "x": x,
                "y": y,
                "text": text,
                "hovertemplate": "%{text}: %{y:.3f}",
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "line": {"color": COLOURS[model], "width": 1.5},
                "marker": {"symbol": SYMBOLS[model]},
            }
        )
        layout[f"xaxis{suffix}"] = {
            "tickvals": list(range(len(groups))),
            "ticktext": make_labels(groups),
            "range": [-0.3, len(groups) - 0.7],
            "zeroline": False,
        }
        layout[f"yaxis{suffix}"] = {"range": [-0.03, 1.03], "zeroline": False}
    layout["yaxis"]["title"] = {"text": "recall"}
    head = ["class", *(f"{titles[model]}: {group}" for model in recalls for group in groups)]
    rows = [
        [name, *(format_number(values[g][c], 3) for values in recalls.values() for g in range(len(groups)))]
        for c, name in enumerate(classes)
    ]
    return Figure(title, alt, traces, layout, Table(title, head, rows), height=420)


def draw_bars(
    title: str, alt: str, rows: Sequence[str], bars: Mapping[str, Sequence[float]], colours: Mapping[str, str]
) -> Figure:
    """Draws bars side by side, for each of some rows.

    Args:
      title: Title, which names the value.
      alt: What the figure shows.
      rows: Names of the rows.
      bars: Values by the title of a series.
      colours: Colour of each series.
    """
    traces = [
        {
            "type": "bar",
            "name": escape_markup(name),
            "x": make_labels(rows),
            "y": list(values),
            "marker": {"color": colours[name]},
            "hovertemplate": "%{x}: %{y:.3f}",
        }
        for name, values in bars.items()
    ]
    layout = {
        "margin": MARGIN,
        "legend": LEGEND,
        "barmode": "group",
        "xaxis": {"type": "category", "automargin": True},
        "yaxis": {"title": {"text": escape_markup(title)}},
    }
    cells = [
        [name, *(format_number(values[c], 3) for values in bars.values())] for c, name in enumerate(rows)
    ]
    return Figure(title, alt, traces, layout, Table(title, ["class", *bars], cells), height=380)


def draw_matrix(
    title: str,
    alt: str,
    names: Sequence[str],
    matrix: Sequence[Sequence[float]],
    *,
    marked: Sequence[tuple[int, int]] = (),
) -> Figure:
    """Draws a matrix of labels (down) and predictions (across) around 0.

    Args:
      title: Title.
      alt: What the figure shows.
      names: Names of the C classes.
      matrix: Values, [C][C].
      marked: Cells, label and prediction, that get a mark.
    """
    labels = make_labels(names)
    limit = max((abs(value) for row in matrix for value in row), default=0) or 1
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "z": [list(row) for row in matrix],
            "x": labels,
            "y": labels,
            "zmin": -limit,
            "zmax": limit,
            "colorscale": DIVERGING,
            "hovertemplate": "label %{y}, predicted %{x}: %{z}",
            "name": escape_markup(title),
        }
    ]
    if marked:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [labels[prediction] for _, prediction in marked],
                "y": [labels[label] for label, _ in marked],
                "marker": {"symbol": "x", "size": 10, "color": "#1b1f24"},
                "hoverinfo": "skip",
                "name": "supported",
                "showlegend": False,
            }
        )
    rows = [[name, *(f"{value:g}" for value in row)] for name, row in zip(names, matrix, strict=True)]
    table = Table(f"{title} (rows: label; columns: predicted)", ["label", *names], rows)
    return Figure(title, alt, traces, make_matrix_layout(), table, height=220 + 26 * len(names))


def make_matrix_layout() -> dict[str, Any]:
    """Makes the layout of a matrix of labels (down) and predictions (across)."""
    axis = {"type": "category", "automargin": True}
    return {
        "margin": MARGIN,
        "xaxis": axis | {"title": {"text": "predicted"}},
        "yaxis": axis | {"autorange": "reversed", "title": {"text": "label"}},
    }


def draw_curves(
    title: str, alt: str, curves: Mapping[str, Sequence[Sequence[float]]], titles: Mapping[str, str]
) -> Figure:
    """Draws a logged number over the steps of each run.

    Args:
      title: Title, which names the number.
      alt: What the figure shows.
      curves: Steps and values of each model.
      titles: Title of each model.
    """
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": titles[model],
            "x": list(steps),
            "y": list(values),
            "line": {"color": COLOURS[model]},
            "hovertemplate": "step %{x}: %{y:.4f}",
        }
        for model, (steps, values) in curves.items()
    ]
    layout = {
        "margin": MARGIN,
        "legend": LEGEND,
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": escape_markup(title)}},
    }
    ends = [
        [titles[model], str(len(values)), format_number(values[0]), format_number(values[-1])]
        for model, (_, values) in curves.items()
    ]
    head = ["model", "number of values", "first", "last"]
    return Figure(title, alt, traces, layout, Table(title, head, ends), height=300)
