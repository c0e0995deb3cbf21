"""The report on a sweep: means over seeds, the choice, domination, and figures that stay readable."""

import itertools
import json
import math

import numpy as np
import plotly.graph_objects
import pytest
from scipy import stats

from fairkd_jax.digests import read_json
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.programs import report
from fairkd_jax.recipe.values import normalize
from fairkd_jax.report.blocks import Figure, Table, Text
from fairkd_jax.report.sweep_findings import collect_sweep, summarize_seeds
from fairkd_jax.report.sweep_plots import draw_trade_off, group_families
from fairkd_jax.report.sweep_sections import make_sweep_sections
from tests.report.test_run_report import Page
from tests.sweep.conftest import ROOT, make_config, write_run

MAD = "mean_abs_disparity"
SUMMARY = {"counts_by_class": [30, 70], "num_examples": 100, "floor": 0.05}
SUMMARY |= {"objectives": {"cross_entropy": 1.0, "rkd_angle": 2.0, "adversary": 1.0}, "balancing": []}


@pytest.fixture
def make_sweep(tmp_path):
    """Returns a function that writes a run for each lambda, seed and architecture."""

    def make(lambdas=("0.0", "1.0", "10.0"), seeds=("0", "1", "2"), models=("efficientnet_tiny",)):
        make_one = make_config(ROOT / "configs" / "rkd_adv.py")
        for weight, seed, model in itertools.product(lambdas, seeds, models):
            texts = {"adversary.weight": weight, "seed": seed, "student.architecture": model}
            scores = {
                **SUMMARY,
                "accuracy": 0.9 - 0.005 * float(weight) + 0.001 * int(seed),
                MAD: 0.2 / (1 + float(weight)),
                f"corrected_{MAD}": 0.15 / (1 + float(weight)) + 0.002 * int(seed),
                "diagnostics": {"classes_predicted": 2},
            }
            folder = tmp_path / "all" / f"w{weight},s{seed},{model}"
            both = [("test", scores), ("val", scores)]
            write_run(folder, normalize(make_one(texts)), scores=both)
        return tmp_path / "all"

    return make


def test_each_method_has_its_mean_and_interval_over_seeds(make_sweep):
    found = collect_sweep(make_sweep())
    assert found["lambda_key"] == "adversary.weight"
    assert [method["lambda"] for method in found["methods"]] == [0.0, 1.0, 10.0]
    values = np.array([0.9, 0.901, 0.902])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    accuracy = found["methods"][0]["measures"]["accuracy"]
    assert [accuracy[key] for key in ("mean", "low", "high")] == pytest.approx([values.mean(), low, high])
    assert found["constant_accuracy"] == 0.7
    chosen = [method["lambda"] for method in found["methods"] if method["is_chosen"]]
    assert chosen == [1.0]  # within 0.01 of the highest accuracy, with the least disparity
    assert math.isnan(summarize_seeds([0.5])["low"])


def test_a_method_is_dominated_where_another_is_better_in_one_and_not_worse_in_the_other(
    make_sweep, tmp_path
):
    folder = make_sweep(lambdas=("0.0", "1.0"), seeds=("0",))
    path = folder / "w1.0,s0,efficientnet_tiny" / "eval" / "test.json"
    content = read_json(path)
    for accuracy, corrected, expected in (
        (0.5, 0.2, [False, True]),
        (0.95, 0.2, [False, False]),
        (0.9, 0.15, [False, False]),
        (0.95, 0.15, [True, False]),
    ):
        content["student"] |= {"accuracy": accuracy, f"corrected_{MAD}": corrected}
        write_text(path, json.dumps(content))
        found = collect_sweep(folder)
        assert [method["is_dominated"] for method in found["methods"]] == expected


def test_families_are_lines_and_the_mixing_line_ends_at_the_constant_answer(make_sweep):
    folder = make_sweep(models=("efficientnet_tiny", "efficientnet_mini"))
    methods = collect_sweep(folder)["methods"]
    families = group_families(methods)
    label = "CE + RKD-A + adversary, student.architecture=efficientnet_"
    assert list(families) == [f"{label}mini", f"{label}tiny"]
    for own in families.values():
        assert [method["lambda"] for method in own] == [0.0, 1.0, 10.0]
    figure = draw_trade_off(methods, 0.7)
    assert (figure.traces[-1]["x"][-1], figure.traces[-1]["y"][-1]) == (0.0, 0.7)


def test_figures_are_what_plotly_understands_and_few_traces_show_many_runs(make_sweep):
    folder = make_sweep(lambdas=tuple(f"{n / 10}" for n in range(20)), seeds=tuple("0123"))
    sections = make_sweep_sections(collect_sweep(folder) | {"versions": {}})
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    for figure in figures:
        plotly.graph_objects.Figure(data=list(figure.traces), layout=figure.layout)
        assert len(figure.traces) <= 30
        assert all(len(row) == len(figure.table.head) for row in figure.table.rows), figure.title
    assert sum(figure.is_turnable for figure in figures) == 1  # browsers allow few of these
    tables = {b.caption: b for s in sections for b in s.blocks if isinstance(b, Table)}
    spread = next(table for caption, table in tables.items() if "standard error" in caption)
    accuracy = 0.9 + np.array([0.0, 0.001, 0.002, 0.003])
    deviation, error = accuracy.std(ddof=1), np.sqrt(accuracy.mean() * (1 - accuracy.mean()) / 100)
    assert spread.rows[0][2:] == [f"{deviation:.4f}", f"{error:.4f}"]
    missing = [b.text for s in sections for b in s.blocks if isinstance(b, Text) and b.kind == "missing"]
    assert any("--probe" in text for text in missing)


def log_advantages(folder, values):
    """Writes the advantages that each run's adversary has logged, by the start of the run's name."""
    for run in folder.iterdir():
        own = next(logged for start, logged in values.items() if run.name.startswith(start))
        lines = [{"step": step, "loss": 1.0, "adversary/advantage": v} for step, v in enumerate(own)]
        (run / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 99}])
        )


def show_lambda(folder):
    sections = make_sweep_sections(collect_sweep(folder) | {"versions": {}})
    (section,) = [section for section in sections if section.anchor == "lambda"]
    figures = {block.title: block for block in section.blocks if isinstance(block, Figure)}
    return figures, [block.text for block in section.blocks if isinstance(block, Text)]


def test_the_adversarys_advantage_is_the_last_that_was_logged(make_sweep):
    folder = make_sweep(lambdas=("0.0", "1.0"))
    log_advantages(
        folder, {"w0.0,s0": [0.9, 0.5], "w0.0,s1": [0.6], "w0.0,s2": [0.1, 0.7], "w1.0": [0.6, 0.2]}
    )
    figures, texts = show_lambda(folder)
    figure = figures["Adversary's last advantage in nats"]
    (trace,) = figure.traces
    assert trace["x"] == [0.0, 1.0]
    assert trace["y"] == pytest.approx([np.mean([0.5, 0.6, 0.7]), 0.2])
    low, high = stats.t.interval(0.95, 2, 0.6, stats.sem([0.5, 0.6, 0.7]))
    assert figure.table.rows[0][2:] == [f"{value:.4f}" for value in (0.6, low, high)]
    assert not any("n/a" in text for text in texts if "adversary" in text)


def test_each_family_has_its_own_line_of_what_chance_would_show(make_sweep):
    folder = make_sweep(lambdas=("0.0", "1.0"), models=("efficientnet_tiny", "efficientnet_mini"))
    floors = {}
    for number, run in enumerate(sorted(folder.iterdir())):
        content = read_json(run / "eval" / "test.json")
        content["student"]["floor"] = 0.01 * number
        write_text(run / "eval" / "test.json", json.dumps(content))
        weight, model = run.name[1:4], run.name.rpartition("_")[2]
        floors.setdefault((model, float(weight)), []).append(0.01 * number)
    figures, _ = show_lambda(folder)
    figure = figures["Mean absolute disparity"]
    solid = {t["name"]: t["line"]["color"] for t in figure.traces if "markers" in t["mode"]}
    dashed = [t for t in figure.traces if t["line"].get("dash") == "dash"]
    assert [t["name"] for t in dashed if t.get("showlegend", True)] == [
        "dashed, in each colour: by chance alone"
    ]
    for model in ("tiny", "mini"):
        (line,) = [t for t in dashed if t["name"].endswith(f"{model}, by chance alone")]
        assert line["x"] == [0.0, 1.0]
        assert line["y"] == pytest.approx([np.mean(floors[model, weight]) for weight in (0.0, 1.0)])
        assert line["line"]["color"] == next(c for name, c in solid.items() if name.endswith(model))
    rows = {(row[0].rpartition("_")[2], float(row[1])): row[-1] for row in figure.table.rows}
    assert rows == {key: f"{np.mean(values):.4f}" for key, values in floors.items()}


def test_a_run_without_an_adversary_has_no_advantage_and_the_page_says_so(make_sweep):
    folder = make_sweep(lambdas=("0.0", "1.0"), models=("efficientnet_tiny", "efficientnet_mini"))
    _, texts = show_lambda(folder)
    title = "Adversary's last advantage in nats"
    assert f"{title}: n/a. No run has logged it: a training without an adversary has none." in texts
    logged = {f"w{weight},s{seed},efficientnet_tiny": [0.5] for weight in (0.0, 1.0) for seed in range(3)}
    log_advantages(folder, logged | {"": []})
    figures, texts = show_lambda(folder)
    (trace,) = figures[title].traces
    assert trace["name"].endswith("tiny")
    rows = figures[title].table.rows
    assert {row[2] for row in rows if row[0].endswith("mini")} == {"n/a"}
    (text,) = [text for text in texts if text.startswith("n/a, because a run without an adversary")]
    assert text.endswith("student.architecture=efficientnet_mini.")


def test_the_page_and_the_numbers_are_written(make_sweep, capsys):
    folder = make_sweep()
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert any("Chosen: w1.0" in text for text in page.texts)
    assert len(page.all("button")) == 2
    assert len(read_json(folder / "report.json")["methods"]) == 3
    with pytest.raises(UsageError, match="there is no folder"):
        report.write_report(folder / "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b"]}, "other classes"),
        ({"group_names": ["a", "b"]}, "other groups"),
        ({"digests": {"test": "x"}}, "other test images"),
    ],
)
def test_runs_on_other_data_are_not_one_sweep(make_sweep, changes, message):
    folder = make_sweep(seeds=("0",))
    path = folder / "w10.0,s0,efficientnet_tiny" / "eval" / "test.json"
    content = read_json(path)
    write_text(path, json.dumps(content | changes))
    with pytest.raises(UsageError, match=f"w0.0.* and w10.0.* were measured on {message}; name a folder"):
        collect_sweep(folder)
