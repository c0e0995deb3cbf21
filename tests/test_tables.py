"""Tables of evaluations: every number stands in the row and the column that say what it is."""

from pathlib import Path

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.programs import eval as eval_program
from fairkd_jax.report import scores, tables
from fairkd_jax.report.population_table import format_population

# What a row, or a column, is called -> the key of a summary.
ROWS = {
    "top-1 accuracy": "accuracy",
    "precision (weighted)": "precision",
    "F1 (weighted)": "f1",
    "recall (macro)": "macro_recall",
    "worst class and group recall": "worst_group_recall",
    "mean absolute disparity": "mean_abs_disparity",
    "by chance alone, if unbiased": "floor",
    "corrected for chance": "corrected_mean_abs_disparity",
    "p value of no bias at all": "any_bias_p",
    "largest disparity": "max_abs_disparity",
}
COLUMNS = ("accuracy", "worst_group_recall", "mean_abs_disparity", "floor", "corrected_mean_abs_disparity")
TITLES = ("top-1 accuracy", "worst recall", "disparity", "by chance", "corrected", "its 95 % interval")


def summary(first):
    """A model's summary, in which no two numbers are the same."""
    numbers = {key: first + place / 1000 for place, key in enumerate(ROWS.values())}
    described = {"objectives": {"cross_entropy": 1.0}, "balancing": [], "architecture": "toy", "num_gaps": 3}
    interval = {"corrected_interval": [first + 0.05, first + 0.06]}
    return numbers | interval | described | {"parameters": 1000, "diagnostics": {"warnings": []}}


def cells(line, title_width):
    return line[:title_width].strip(), line[title_width:].split()


def test_each_row_of_a_comparison_shows_what_it_says():
    models = {"student": summary(0.2), "baseline": summary(0.5), "teacher": summary(0.1)}
    change = {"percent": 12.5, "corrected_percent": -7.5}
    text = tables.format_comparison(models | {"inflation": {"student": change}})
    head, _, *lines = text.splitlines()
    assert head.split() == ["teacher", "student", "baseline"]
    width = max(map(len, ROWS)) + 2
    rows = [cells(line, width) for line in lines]
    # Behind these rows, one of which is called the same.
    inflation = [values for _, values in rows[-2:]]
    assert inflation == [["+12.5", "%"], ["-7.5", "%"]]
    found = dict(rows[:-2])
    order = [models[name] for name in head.split()]
    for title, key in ROWS.items():
        assert found[title] == [f"{model[key]:.4f}" for model in order], title
    ends = [f"{end:.4f}" for model in order for end in model["corrected_interval"]]
    assert [word for word in found["its 95 % interval"] if word != "to"] == ends


def test_each_column_of_a_population_shows_what_it_says():
    evaluations = {f"seed={n}": {"student": summary(0.1 * n), "teacher": summary(0.7)} for n in (2, 5)}
    head, _, *lines = format_population(evaluations).splitlines()
    places = [head.index(title) for title in TITLES]
    assert places == sorted(places)
    *lines, mean, deviation = lines
    shown = {line.split()[0]: line.split()[1:] for line in lines}
    expected = {"teacher": summary(0.7)} | {name: one["student"] for name, one in evaluations.items()}
    assert list(shown) == list(expected)
    for name, model in expected.items():
        low, high = model["corrected_interval"]
        numbers = [f"{model[key]:.4f}" for key in COLUMNS]
        assert shown[name] == [*numbers, f"{low:.4f}", "to", f"{high:.4f}"]
    # The seeds 2 and 5 have numbers that lie 0.3 apart.
    first, second = (one["student"] for one in evaluations.values())
    expected = [f"{(first[key] + second[key]) / 2:.4f}" for key in COLUMNS]
    assert mean.split() == ["mean", "over", "2", "seeds", *expected]
    assert deviation.split() == ["standard", "deviation", *[f"{0.3 / 2**0.5:.4f}"] * len(COLUMNS)]


def test_a_population_has_means_over_seeds_for_each_method():
    numbers = {"a=0,seed=1": 0.1, "a=0,seed=2": 0.3, "a=0,seed=3": 0.5, "a=1,seed=1": 0.2, "a=1,seed=2": 0.4}
    evaluations = {name: {"student": summary(first)} for name, first in numbers.items()}
    evaluations["a=1,seed=2"]["student"]["floor"] = None  # as a file says where there is no number
    evaluations["b=2"] = {"student": summary(0.9)}
    evaluations["a=2,seed=1"] = {"student": summary(0.9)}
    rows = format_population(evaluations).splitlines()[2 + len(evaluations) :]
    shown = [row.split(", ")[-1].split() for row in rows]
    assert [row.split(", ")[0] for row in rows] == ["a=0", "a=0", "a=1", "a=1"]
    assert shown[0][:5] == ["mean", "over", "3", "seeds", "0.3000"]
    assert shown[1][:3] == ["standard", "deviation", "0.2000"]
    assert shown[2][:5] == ["mean", "over", "2", "seeds", "0.3000"]
    place = COLUMNS.index("floor")
    assert [shown[0][4 + place], shown[2][4 + place], shown[3][2 + place]] == ["0.3060", "n/a", "n/a"]
    alone = format_population({"b=1": evaluations["b=2"], "b=2": evaluations["b=2"]})
    assert len(alone.splitlines()) == 4


def with_old_keys(summary):
    """The summary as earlier versions wrote it."""
    old = {key: value for key, value in summary.items() if key != "diagnostics"}
    return old | {"alarms": {"raised": summary["diagnostics"]["warnings"]}}


def test_an_evaluation_with_the_old_keys_prints_the_same_tables():
    warnings = ["collapse: 1 of 4 classes are never predicted", "over-correction: recall is lower"]
    new = {"teacher": summary(0.7), "student": summary(0.2) | {"diagnostics": {"warnings": warnings}}}
    old = {name: with_old_keys(model) for name, model in new.items()}
    text = tables.format_comparison(new)
    assert text.splitlines()[-2:] == [f"warning, student: {warning}" for warning in warnings]
    assert tables.format_comparison(old) == text
    text = format_population({"seed=2": new})  # a single seed has no mean
    assert text.splitlines()[-2:] == [f"warning, seed=2: {warning}" for warning in warnings]
    assert format_population({"seed=2": old}) == text


def test_the_recall_by_group_says_how_many_images_have_no_group():
    model = {"recall_by_group": [[0.5], [1.0]], "disparity": [0.5], "counts_by_group": [[4], [3]]}
    evaluation = {"split": "test", "num_examples": {"test": 9}, "student": model}
    evaluation |= {"group_names": ["f", "m"], "class_names": ["a"]}
    scores = Path("run", "eval", "test.json")
    text = tables.format_recall_by_group(evaluation, scores)
    assert text.splitlines()[-1].startswith("2 of 9 images in test have no known group")
    assert text == tables.format_recall_by_group(evaluation | {"num_examples": {"test": 7}}, scores) + (
        "\n" + text.splitlines()[-1]
    )


def evaluation_of(first, classes=1):
    model = summary(first) | {"disparity": [0.5] * classes}
    model |= {"recall_by_group": [[0.5] * classes, [1.0] * classes], "counts_by_group": [[4] * classes] * 2}
    names = {"group_names": ["f", "m"], "class_names": [f"class {c}" for c in range(classes)]}
    return {
        "split": "val",
        "checkpoint": "last",
        "num_examples": {"val": 8 * classes},
        "student": model,
    } | names


@pytest.mark.parametrize(("classes", "more"), [(40, None), (41, 1), (2000, 1960)])
def test_a_long_table_shows_its_first_rows_and_where_the_rest_is(classes, more, tmp_path):
    text = scores.format_tables(tmp_path, evaluation_of(0.1, classes))
    scores.write_tables(tmp_path, evaluation_of(0.1, classes))
    assert sum(line.startswith("class ") for line in text.splitlines()) == 1 + min(classes, 40)
    assert "class 39 " in text
    last = f"... and {more:,} more classes, in {tmp_path / 'eval' / 'val.last.json'}" if more else ""
    assert text.splitlines()[-1].startswith(last or "class 39")
    assert (tmp_path / "eval" / "val.last.txt").read_text() == text + "\n"


def test_the_members_of_a_population_are_scored_into_one_table(tmp_path, monkeypatch, capsys):
    for name in ("seed=10", "seed=9", "seed=2", "no run"):
        (tmp_path / "members" / name).mkdir(parents=True)
        if name != "no run":
            (tmp_path / "members" / name / "config.json").write_text("{}")
    (tmp_path / "members" / "seed=2" / "diverged.txt").write_text("loss")
    found = {"seed=9": evaluation_of(0.2), "seed=10": evaluation_of(0.4)}
    monkeypatch.setattr(eval_program, "_score", lambda folder: (found[folder.name], None))
    assert eval_program._is_population(tmp_path)
    eval_program._score_members(tmp_path)
    printed = capsys.readouterr()
    text = printed.out.removesuffix("\n")
    assert [line.split("  ")[0] for line in text.splitlines()[2:]] == [
        "seed=9",
        "seed=10",
        "mean over 2 seeds",
        "standard deviation",
        "left out, as it diverged: seed=2",
    ]
    assert (tmp_path / "eval" / "val.last.txt").read_text() == text + "\n"
    for name, evaluation in found.items():
        own = (tmp_path / "members" / name / "eval" / "val.last.txt").read_text()
        assert tables.format_comparison(evaluation) in own
    assert printed.err == "scoring seed=9 ...\nscoring seed=10 ...\n"
    (tmp_path / "members" / "seed=9" / "diverged.txt").write_text("loss")
    (tmp_path / "members" / "seed=10" / "config.json").unlink()
    with pytest.raises(UsageError, match="holds no member that could be scored"):
        eval_program._score_members(tmp_path)
