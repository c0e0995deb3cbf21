"""Figures of a report on a sweep: the trade-off, and measures over lambda."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.report.blocks import Figure, Table
from fairkd_jax.report.plots import LEGEND, MARGIN, escape_markup, make_labels
from fairkd_jax.report.tables import format_measure, format_number

# Okabe and Ito's colours, and symbols for those who see no colours.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star")
Methods = Sequence[Mapping[str, Any]]
_ENDS = ("mean", "low", "high")


def group_families(methods: Methods) -> dict[str, list[Mapping[str, Any]]]:
    """Groups methods that differ in lambda alone, each sorted by lambda.

    Args:
      methods: The `methods` of `collect_sweep`.
    """
    families: dict[str, list[Mapping[str, Any]]] = {}
    for method in methods:
        families.setdefault(method["family"], []).append(method)
    return {name: sorted(own, key=_sort_by_lambda) for name, own in families.items()}


def _sort_by_lambda(method: Mapping[str, Any]) -> float:
    return -math.inf if math.isnan(method["lambda"]) else method["lambda"]


def _style(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number % len(_COLOURS)], "symbol": _SYMBOLS[number % len(_SYMBOLS)]}


def _name_point(method: Mapping[str, Any]) -> str:
    text = "" if math.isnan(method["lambda"]) else f", lambda {method['lambda']:g}"
    return escape_markup(f"{method['family']}{text}, {len(method['seeds'])} seeds")


def _list_measure(methods: Methods, name: str, end: str = "mean") -> list[float]:
    return [method["measures"][name][end] for method in methods]


def _make_error(methods: Methods, name: str, colour: str) -> dict[str, Any]:
    mean = _list_measure(methods, name)
    high = _list_measure(methods, name, "high")
    half = [0.0 if math.isnan(h) else h - m for h, m in zip(high, mean, strict=True)]
    return {"type": "data", "array": half, "color": colour, "thickness": 1}


def _find_range(methods: Methods, name: str) -> list[float]:
    """Returns the ends of an axis that shows all means and intervals; the mixing line may leave the frame."""
    found = [method["measures"][name] for method in methods]
    values = [one[end] for one in found for end in _ENDS if not math.isnan(one[end])]
    margin = 0.05 * (max(values) - min(values)) or 0.01
    return [min(values) - margin, max(values) + margin]


def draw_trade_off(methods: Methods, constant_accuracy: float) -> Figure:
    """Draws accuracy against corrected disparity, a line of methods for each family.

    Args:
      methods: The `methods` of `collect_sweep`.
      constant_accuracy: Accuracy of the answer that is always the most frequent class.
    """
    traces: list[dict[str, Any]] = []
    for number, (family, own) in enumerate(group_families(methods).items()):
        style = _style(number)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape_markup(family),
                "x": _list_measure(own, "corrected"),
                "y": _list_measure(own, "accuracy"),
                "error_x": _make_error(own, "corrected", style["color"]),
                "error_y": _make_error(own, "accuracy", style["color"]),
                "text": [_name_point(method) for method in own],
                "hovertemplate": "%{text}: disparity %{x:.3f}, accuracy %{y:.3f}",
                "line": {"color": style["color"], "width": 1, "dash": "dot"},
                "marker": {
                    **style,
                    "size": [16 if method["is_chosen"] else 9 for method in own],
                    "opacity": [0.35 if method["is_dominated"] else 1.0 for method in own],
                },
            }
        )
    best = max(methods, key=lambda method: method["measures"]["accuracy"]["mean"])
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "random mixing with the constant answer",
            "x": [best["measures"]["corrected"]["mean"], 0.0],
            "y": [best["measures"]["accuracy"]["mean"], constant_accuracy],
            "line": {"color": "#8c8c8c", "dash": "dash", "width": 1},
            "hoverinfo": "skip",
        }
    )
    layout = {
        "margin": MARGIN,
        "legend": LEGEND,
        "xaxis": {
            "title": {"text": "corrected mean absolute disparity (less is fairer)"},
            "range": _find_range(methods, "corrected"),
        },
        "yaxis": {"title": {"text": "top-1 accuracy"}, "range": _find_range(methods, "accuracy")},
    }
    alt = f"Accuracy by corrected disparity of {len(methods)} methods; the table below has all points."
    title = "Trade-off on the test images"
    return Figure(title, alt, traces, layout, tabulate_methods(methods, title), height=520)


def tabulate_methods(methods: Methods, caption: str) -> Table:
    """Makes the table of all methods: means over seeds with their intervals.

    Args:
      methods: The `methods` of `collect_sweep`.
      caption: Caption of the table.
    """
    shown = {
        "accuracy": "accuracy",
        "disparity": "MAD",
        "corrected": "corrected",
        "floor": "by chance",
        "worst_recall": "worst recall",
        "advantage": "adversary",
        "probe": "probe",
        "classes_predicted": "classes predicted",
    }
    rows = []
    for method in methods:
        text = "" if math.isnan(method["lambda"]) else f"{method['lambda']:g}"
        marks = " (chosen)" if method["is_chosen"] else ""
        cells = []
        for name in shown:
            found = method["measures"][name]
            interval = format_measure([found["low"], found["high"]])
            cells.append(f"{format_number(found['mean'])} ({interval})")
        rows.append([f"{method['family']}{marks}", text, str(len(method["seeds"])), *cells])
    return Table(
        f"{caption}: mean over seeds (95 % interval)", ["method", "lambda", "seeds", *shown.values()], rows
    )


def draw_over_lambda(methods: Methods, measure: str, title: str, note: str) -> Figure:
    """Draws a measure over lambda, a line for each family, with intervals over seeds.

    Args:
      methods: The `methods` of `collect_sweep`.
      measure: Name of the measure in `measures`.
      title: Title, which names the measure.
      note: What the figure shows beside the measure; "" for nothing.
    """
    traces: list[dict[str, Any]] = []
    families = group_families(methods)
    for number, (family, own) in enumerate(families.items()):
        if all(map(math.isnan, _list_measure(own, measure))):
            continue
        style = _style(number)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape_markup(family),
                "x": [method["lambda"] for method in own],
                "y": _list_measure(own, measure),
                "error_y": _make_error(own, measure, style["color"]),
                "hovertemplate": "lambda %{x}: %{y:.4f}",
                "line": {"color": style["color"]},
                "marker": style,
            }
        )
    if measure == "disparity":
        traces += _draw_floors(families)
    layout = {
        "margin": MARGIN,
        "legend": LEGEND,
        "xaxis": {"title": {"text": "lambda"}},
        "yaxis": {"title": {"text": escape_markup(title)}},
    }
    columns = [(measure, end) for end in _ENDS] + [("floor", "mean")] * (measure == "disparity")
    rows = [
        [
            method["family"],
            f"{method['lambda']:g}",
            *(format_number(method["measures"][name][end]) for name, end in columns),
        ]
        for method in methods
    ]
    head = ["method", "lambda", "mean", "from", "to", "by chance"][: 2 + len(columns)]
    table = Table(title, head, rows)
    return Figure(title, f"{title} over lambda. {note}".strip(), traces, layout, table, height=320)


def _draw_floors(families: Mapping[str, Methods]) -> list[dict[str, Any]]:
    """Draws the disparity that chance alone would show: a line for each family, as they differ."""
    line = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    floors = [
        line
        | {
            "name": escape_markup(f"{family}, by chance alone"),
            "showlegend": False,
            "x": [method["lambda"] for method in own],
            "y": _list_measure(own, "floor"),
            "line": {"color": _style(number)["color"], "dash": "dash", "width": 1},
        }
        for number, (family, own) in enumerate(families.items())
    ]
    key = {"name": "dashed, in each colour: by chance alone", "x": [None], "y": [None]}
    return [*floors, line | key | {"line": {"color": "#8c8c8c", "dash": "dash", "width": 1}}]


def draw_turnable(methods: Methods) -> Figure:
    """Draws lambda, corrected disparity and accuracy in three dimensions."""
    traces = []
    for number, (family, own) in enumerate(group_families(methods).items()):
        colour = _COLOURS[number % len(_COLOURS)]
        traces.append(
            {
                "type": "scatter3d",
                "mode": "lines+markers",
                "name": escape_markup(family),
                "x": [method["lambda"] for method in own],
                "y": _list_measure(own, "corrected"),
                "z": _list_measure(own, "accuracy"),
                "line": {"color": colour, "width": 4},
                "marker": {"color": colour, "size": 5},
                "hovertemplate": "lambda %{x}, disparity %{y:.3f}, accuracy %{z:.3f}",
            }
        )
    axes = {"xaxis": "lambda", "yaxis": "corrected disparity", "zaxis": "accuracy"}
    scene: dict[str, Any] = {name: {"title": {"text": text}} for name, text in axes.items()}
    layout = {
        "margin": {"l": 0, "r": 0, "t": 30, "b": 0},
        "legend": LEGEND,
        "scene": {**scene, "camera": {"eye": {"x": 1.6, "y": -1.6, "z": 0.7}}},
    }
    title = "Lambda, disparity and accuracy"
    alt = f"{title} of {len(methods)} methods in three dimensions; the table has the same values."
    return Figure(title, alt, traces, layout, tabulate_methods(methods, title), height=520, is_turnable=True)


def draw_heat_map(methods: Methods) -> Figure:
    """Draws the corrected disparity of each family (down) at each lambda (across)."""
    families = group_families(methods)
    lambdas = sorted({method["lambda"] for method in methods})
    cells = {
        (name, m["lambda"]): m["measures"]["corrected"]["mean"] for name, own in families.items() for m in own
    }
    values = [[cells.get((name, number), math.nan) for number in lambdas] for name in families]
    title = "Corrected disparity by method and lambda"
    texts = [f"{number:g}" for number in lambdas]
    trace = {
        "type": "heatmap",
        "z": values,
        "x": texts,
        "y": make_labels(list(families)),
        "colorscale": "Cividis",
        "reversescale": True,
        "hovertemplate": "%{y}, lambda %{x}: %{z:.4f}",
    }
    layout = {
        "margin": MARGIN,
        "xaxis": {"type": "category", "title": {"text": "lambda"}},
        "yaxis": {"type": "category", "automargin": True},
    }
    rows = [[name, *map(format_number, row)] for name, row in zip(families, values, strict=True)]
    return Figure(
        title, f"{title}.", [trace], layout, Table(title, ["method", *texts], rows), 160 + 40 * len(rows)
    )
