"""Figures for papers: every figure in both formats, the same bytes each time, fonts that journals take."""

from xml.etree import ElementTree

import pytest

from fairkd_jax.digests import read_json
from fairkd_jax.programs import report
from fairkd_jax.report import static
from fairkd_jax.report.blocks import Figure, Section, Table
from fairkd_jax.report.findings import collect_findings
from fairkd_jax.report.run_sections import make_run_sections


def test_figures_are_written_in_both_formats_and_the_same_each_time(make_report_run, tmp_path):
    folder, _, _ = make_report_run()
    sections = make_run_sections(collect_findings(folder) | {"versions": {}})
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    kinds = {tuple(sorted({trace["type"] for trace in figure.traces})): figure for figure in figures}
    sections = [Section("s", "S", list(kinds.values()))]  # a figure of each kind
    first, again = (static.save_figures(sections, tmp_path / name) for name in ("one", "two"))
    assert len(first) == 2 * len(kinds) >= 6
    texts = []
    for path, other in zip(first, again, strict=True):
        content = path.read_bytes()
        assert content == other.read_bytes(), path
        if path.suffix == ".svg":
            texts += [element.text for element in ElementTree.fromstring(content).iter() if element.text]
        else:
            assert b"/Type3" not in content
    assert any("</script>" in text for text in texts)  # as letters
    assert not any("&lt;" in text for text in texts)


def test_the_three_dimensions_are_drawn_too(tmp_path):
    trace = {
        "type": "scatter3d",
        "name": "m",
        "x": [0, 1],
        "y": [1, 2],
        "z": [3, None],
        "line": {"color": "red"},
    }
    scene = {f"{axis}axis": {"title": {"text": axis}} for axis in "xyz"}
    table = Table("t", [""], [])
    figure = Figure("Turn/me", "alt", [trace], {"scene": scene}, table, is_turnable=True)
    svg, pdf = static.save_figures([Section("s", "S", [figure])], tmp_path)
    assert (svg.name, pdf.name) == ("01-turn-me.svg", "01-turn-me.pdf")


def test_the_command_writes_the_figures_of_one_report(make_report_run, tmp_path, monkeypatch, capsys):
    folder, _, _ = make_report_run()
    asked = []
    monkeypatch.setattr(static, "save_figures", lambda sections, place: asked.append((len(sections), place)))
    assert report.main([str(folder), "--figures", str(tmp_path / "figures")]) == 0
    assert asked == [(9, tmp_path / "figures")]
    assert read_json(folder / "report.json")["folder"] == str(folder)
    with pytest.raises(SystemExit, match="2"):
        report.main([str(folder), str(folder), "--figures", str(tmp_path / "figures")])
    assert "--figures and --against are for a single report" in capsys.readouterr().err
