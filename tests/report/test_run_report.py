"""The report on a run: its numbers, what is missing, and a page that harms nobody."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects
import pytest
from scipy.stats import binomtest

from fairkd_jax.digests import read_arrays, read_json, write_arrays, write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness.changes import compute_confusion_shift, compute_gap_corrections
from fairkd_jax.fairness.paired_comparison import count_paired_outcomes
from fairkd_jax.programs import report
from fairkd_jax.report import findings as report_findings
from fairkd_jax.report.blocks import Figure, Section, Table, Text
from fairkd_jax.report.charts import draw_training_curves
from fairkd_jax.report.confusion_plot import draw_confusion
from fairkd_jax.report.curves import read_curves
from fairkd_jax.report.html import render_page
from fairkd_jax.report.run_sections import make_run_sections
from tests.report.conftest import HOSTILE, IMAGES


class Page(HTMLParser):
    """The elements of a page, its scripts and its texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.texts, self._inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif data.strip():
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(make_report_run):
    folder, _, _ = make_report_run()
    return Page(report.write_report(folder).read_text(encoding="utf-8"))


def test_names_of_data_are_text_wherever_they_stand(page):
    assert len(page.scripts) == 3
    assert not page.all("b")
    assert not page.all("i")
    assert not page.all("img")
    for name in HOSTILE:
        assert name in page.texts
    data = json.loads(page.scripts[0][1])
    shown = json.dumps([figure["traces"] for figure in data]) + json.dumps([f["layout"] for f in data])
    assert "<" not in shown  # plotly would read it as markup
    assert html.escape("<b>bold</b>") in shown


def test_nothing_is_loaded_and_no_other_script_runs(page):
    (policy,) = [
        meta["content"] for meta in page.all("meta") if "content" in meta and "default-src" in meta["content"]
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    allowed = re.search(r"script-src ([^;]*)", policy)[1].split()
    found = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for attributes, text in page.scripts
        if attributes.get("type") != "application/json"
    ]
    assert found == allowed
    for _, attributes in page.elements:
        assert not {"src", "onclick", "onload"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")


def test_a_reader_without_eyes_or_mouse_has_everything(page):
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert all(link["href"][1:] in anchors for link in page.all("a"))
    plots = [attributes for attributes in page.all("div") if attributes.get("class") == "plot"]
    assert len(plots) == len(page.all("figure")) >= 6
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert len(page.all("details")) >= len(plots)
    assert all("scope" in attributes for attributes in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_figures_are_what_plotly_understands(make_report_run):
    folder, _, _ = make_report_run()
    found = report_findings.collect_findings(folder) | {"versions": {}}
    sections = make_run_sections(found)
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    assert len(figures) >= 6
    for figure in figures:
        plotly.graph_objects.Figure(data=list(figure.traces), layout=figure.layout)
        assert len(figure.traces) <= 30
        assert all(len(row) == len(figure.table.head) for row in figure.table.rows), figure.title


def test_the_numbers_are_those_of_the_predictions(make_report_run):
    folder, images, predictions = make_report_run()
    report.write_report(folder)
    found = read_json(folder / "report.json")
    known = {name: values == images["label"] for name, values in predictions.items()}
    (correction,) = found["corrections"]
    for c in range(len(HOSTILE)):
        cells = [(images["label"] == c) & (images["group"] == g) for g in (0, 1)]
        before, after = (
            known[name][cells[0]].mean() - known[name][cells[1]].mean() for name in ("baseline", "student")
        )
        assert correction["before"][c] == pytest.approx(before)
        assert correction["after"][c] == pytest.approx(after)
        if correction["percent"][c] is not None:
            assert correction["percent"][c] == pytest.approx(100 * (1 - abs(after) / abs(before)))
            assert correction["low"][c] < correction["percent"][c] < correction["high"][c]
    assert any(percent is not None for percent in correction["percent"])
    assert found["models"]["student"]["accuracy"] == pytest.approx(known["student"].mean())
    shift = np.zeros((len(HOSTILE), len(HOSTILE)), int)
    shift[found["shift"]["label"], found["shift"]["prediction"]] = found["shift"]["change"]
    for name, sign in (("student", 1), ("baseline", -1)):
        np.subtract.at(shift, (images["label"], predictions[name]), sign)
    assert (shift == 0).all()
    entry = found["comparison"]["comparisons"][0]
    assert entry["over_seeds"]["accuracy"]["mean"] == pytest.approx(
        known["student"].mean() - known["baseline"].mean()
    )
    assert "label" not in found


def test_a_cell_of_the_confusion_matrix_has_mcnemars_p():
    rng = np.random.default_rng(3)
    label, first, second = rng.integers(0, 3, (3, 300))
    second = np.where(rng.random(300) < 0.5, first, second)
    found = compute_confusion_shift(label, first, second)
    cells = dict(zip(zip(found["label"], found["prediction"], strict=True), range(9), strict=True))
    tested = 0
    for y in range(3):
        for k in range(3):
            lost = np.sum((label == y) & (first == k) & (second != k))
            won = np.sum((label == y) & (first != k) & (second == k))
            place = cells[y, k]
            assert found["change"][place] == won - lost
            assert found["p"][place] == pytest.approx(binomtest(int(won), int(won + lost)).pvalue)
            tested += 1
    assert min(found["holm_p"]) == pytest.approx(min(1.0, tested * min(found["p"])))
    assert not any(compute_confusion_shift(label, first, first).values())


def test_each_model_has_its_confusion_matrix_in_percent_of_the_label(make_report_run):
    folder, images, predictions = make_report_run()
    found = report_findings.collect_findings(folder) | {"versions": {}}
    drawn = {
        block.title: block
        for section in make_run_sections(found)
        for block in section.blocks
        if isinstance(block, Figure) and block.title.startswith("Confusion matrix")
    }
    titles = {
        "teacher": "teacher",
        "baseline": "student, not debiased",
        "student": "student, debiased",
    }
    assert list(drawn) == [f"Confusion matrix, {title}" for title in titles.values()]
    for name, title in titles.items():
        figure = drawn[f"Confusion matrix, {title}"]
        (trace,) = figure.traces
        for c in range(len(HOSTILE)):
            own = predictions[name][images["label"] == c]
            for k in range(len(HOSTILE)):
                number, percent = (own == k).sum(), 100 * (own == k).mean()
                assert trace["z"][c][k] == pytest.approx(percent)
                assert trace["text"][c][k] == (f"{percent:.0f}" if number else "")
                assert figure.table.rows[c][1 + k] == f"{percent:.1f} % ({number})"
                assert found["confusion"][name][c][k] == number


def test_a_confusion_matrix_of_many_classes_or_of_a_class_without_images_stays_readable():
    names, counts = [f"c{k}" for k in range(25)], np.diag(np.arange(25)).tolist()
    figure = draw_confusion("t", "alt", names, counts)
    assert "text" not in figure.traces[0]
    assert np.isnan(figure.traces[0]["z"][0]).all()
    assert set(figure.table.rows[0][1:]) == {"n/a"}
    assert draw_confusion("t", "alt", names[:16], [row[:16] for row in counts[:16]]).height <= 600


def test_a_gap_that_may_be_nothing_has_no_correction():
    label, group = np.zeros(40, int), np.repeat([0, 1], 20)
    right = {"before": np.arange(40) % 20 < 10, "after": np.arange(40) % 20 < 15}
    outcomes = count_paired_outcomes(group, label, right["before"], right["after"], groups=2, classes=1)
    found = compute_gap_corrections(outcomes, num_resamples=100)
    assert found["before"] == [0.0]
    assert np.isnan([found["percent"][0], found["low"][0], found["high"][0]]).all()
    right["before"] = group == 0
    outcomes = count_paired_outcomes(group, label, right["before"], right["after"], groups=2, classes=1)
    found = compute_gap_corrections(outcomes, num_resamples=500)
    assert found["percent"] == [100.0]
    assert found["low"][0] < 75


def texts_of(sections, kind):
    return [b.text for section in sections for b in section.blocks if isinstance(b, Text) and b.kind == kind]


def test_what_a_run_lacks_is_said_with_the_command_that_adds_it(make_report_run):
    folder, _, _ = make_report_run(baseline=False, teacher=False)
    (folder / "metrics.jsonl").unlink()
    found = report_findings.collect_findings(folder) | {"versions": {}}
    sections = make_run_sections(found)
    missing = " ".join(texts_of(sections, "missing"))
    for words in ("--baseline adds it", f"run `fairkd-eval {folder}`", "--probe", "no metrics.jsonl"):
        assert words in missing
    assert not texts_of(sections, "verdict")


def test_a_report_on_another_checkpoint_leaves_the_report_on_the_best_alone(make_report_run, capsys):
    folder, images, _ = make_report_run(["a", "b", "c"], ["g", "h"])
    for run in (folder, folder / "baseline"):
        scores = read_json(run / "eval" / "test.json")
        scores["student"]["step"] = 70
        write_json(run / "eval" / "test.last.json", scores | {"checkpoint": "last"})
        arrays = {"student_prediction": images["label"], "student_step": np.array(70)}
        write_arrays(run / "predictions" / "test.last.npz", images | arrays)
    assert report.main([str(folder)]) == 0
    before = {path.name: path.read_bytes() for path in folder.glob("report*")}
    assert report.main([str(folder), "--checkpoint", "last"]) == 0
    assert sorted(path.name for path in folder.glob("report*")) == [
        "report.html",
        "report.json",
        "report.last.html",
        "report.last.json",
    ]
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    found = read_json(folder / "report.last.json")
    assert (found["checkpoint"], found["comparison"]["arms"][0]["mean"]["accuracy"]) == ("last", 1.0)
    assert "its last checkpoint, of step 70" in (folder / "report.last.html").read_text(encoding="utf-8")
    assert "its best checkpoint, of step 10" in before["report.html"].decode()
    capsys.readouterr()
    assert report.main([str(folder.parent), "--checkpoint", "last"]) == 2
    assert "is no run; leave --checkpoint out" in capsys.readouterr().err


def test_many_classes_make_a_page_that_opens(make_report_run):
    classes = [f"class {c}" for c in range(90)]
    folder, _, _ = make_report_run(classes, ["g", "h"])
    path = report.write_report(folder)
    page = path.read_text(encoding="utf-8")
    assert len(page) < 8e6
    assert page.count("40 of 90 classes are shown:") >= 5
    found = report_findings.collect_findings(folder) | {"versions": {}}
    p = np.array([pair["p"] for model in found["models"].values() for pair in model["pairs"]], float)
    least = np.where(np.isnan(p), 2.0, p).min(axis=0)
    clearest = {f"class {c}" for c in np.flatnonzero(least < np.sort(least)[20])}
    assert clearest
    sections = {section.anchor: section for section in make_run_sections(found)}
    for anchor in ("data", "classes", "predictions"):
        for block in sections[anchor].blocks:
            rows = block.table.rows if isinstance(block, Figure) else getattr(block, "rows", None)
            assert rows is None or len(rows) == 40
            if rows and anchor != "predictions":
                assert clearest <= {row[0] for row in rows}
    assert len(read_json(folder / "report.json")["models"]["student"]["per_class"]) == 90


def test_a_run_with_its_student_without_debiasing_gets_only_the_words_that_one_seed_allows(make_report_run):
    folder, _, _ = make_report_run()
    sections = make_run_sections(report_findings.collect_findings(folder) | {"versions": {}})
    (verdict,) = texts_of(sections, "verdict")
    assert "One seed cannot tell methods apart" in verdict


def test_inflation_has_its_interval_for_each_student(make_report_run):
    folder, images, predictions = make_report_run()
    report.write_report(folder)
    found = read_json(folder / "report.json")["inflation"]
    gaps = {}
    for name, predicted in predictions.items():
        right, known = predicted == images["label"], images["group"] >= 0
        cells = [
            [
                right[known & (images["group"] == g) & (images["label"] == c)].mean()
                for c in range(len(HOSTILE))
            ]
            for g in (0, 1)
        ]
        gaps[name] = np.abs(np.subtract(*cells)).mean()
    for name in ("student", "baseline"):
        percent = 100 * (gaps[name] / gaps["teacher"] - 1)
        assert found[name]["percent"] == pytest.approx(percent)
        low, high = found[name]["percent_interval"]
        assert low < percent < high
    text = " ".join(Page((folder / "report.html").read_text(encoding="utf-8")).texts)
    for title, name in (("student, debiased", "student"), ("student, not debiased", "baseline")):
        corrected = found[name]["corrected_percent"]
        words = f"against the teacher, {title}: {corrected:+.1f} % (95 % interval over images"
        assert words in text


def test_a_teacher_without_a_certain_gap_gets_no_percentage(make_report_run):
    folder, images, _ = make_report_run(teacher=False)
    path = folder / "predictions" / "test.npz"
    arrays = {**read_arrays(path, "")}
    arrays["teacher_prediction"] = images["label"]  # never wrong
    write_arrays(path, arrays)
    found = report_findings.collect_findings(folder)["inflation"]
    assert list(found) == ["student"]
    assert np.isnan(found["student"]["percent"])
    section = make_run_sections(report_findings.collect_findings(folder) | {"versions": {}})[1]
    (text,) = [b.text for b in section.blocks if isinstance(b, Text) and b.text.startswith("Inflation of")]
    difference = found["student"]["difference"]
    assert "n/a, because the teacher's own disparity may be 0" in text
    assert f"by {difference:+.4f} (95 % interval over images " in text
    assert "%." not in text


def test_a_baseline_in_the_evaluation_alone_is_no_model_of_the_report(make_report_run):
    folder, _, _ = make_report_run(baseline=False)
    path = folder / "eval" / "test.json"
    content = read_json(path)
    content["inflation"]["baseline"] = content["inflation"]["student"]
    write_json(path, content)
    assert list(report_findings.collect_findings(folder)["inflation"]) == ["student"]
    assert report.write_report(folder).exists()


def test_three_groups_and_a_class_without_images_have_a_report(make_report_run):
    folder, images, _ = make_report_run(classes=["a", "b"], groups=["x", "y", "z"])
    assert len(images["label"]) == IMAGES
    page = Page(report.write_report(folder).read_text(encoding="utf-8"))
    assert {"x", "y", "z"} <= set(page.texts) | {text.split(": ")[-1] for text in page.texts}


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda path: path.mkdir(), "holds no evaluated run"), (lambda path: None, "there is no folder")],
)
def test_a_folder_without_an_evaluated_run_is_one_line(make, message, tmp_path, capsys):
    make(tmp_path / "none")
    assert report.main([str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "none" / "report.html").exists()


def test_a_page_without_figures_has_no_script():
    table = Table("t", ["", "x"], [["a", "1"]], is_folded=True)
    page = Page(render_page("<t>", "s", [Section("one", "One", [Text("words"), table])]))
    assert not page.scripts
    assert "<t>" in page.texts


def test_curves_are_read_from_the_log_and_drawn(tmp_path):
    lines = [
        {"step": 1, "loss": 2.0, "noise": 3},
        {"step": 2, "validation/accuracy": 0.5},
        {"step": 3, "loss": 1.0, "validation/accuracy": None},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = read_curves(path)
    assert curves == {"loss": [[1, 3], [2.0, 1.0]], "validation/accuracy": [[2], [0.5]]}
    assert read_curves(tmp_path / "none") == {}
    for found in ({"student": curves, "teacher": {}}, {}):
        draw_training_curves(tmp_path / "curves.png", found, "a run")
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    path.write_text(path.read_text() + '{"step": 4, "lo')  # a kill
    assert read_curves(path) == curves
    path.write_text("no JSON\n")
    with pytest.raises(UsageError, match=r"metrics\.jsonl cannot be read"):
        read_curves(path)
