"""What a report says where its runs or its wishes do not fit."""

import pytest

from fairkd_jax.digests import read_json, write_json
from fairkd_jax.programs import report
from fairkd_jax.report.blocks import Text
from fairkd_jax.report.findings import collect_findings
from fairkd_jax.report.run_sections import make_run_sections


def test_students_that_differ_in_more_than_debiasing_are_said_to(make_report_run):
    folder, *_ = make_report_run()
    assert collect_findings(folder)["other_differences"] == []
    path = folder / "baseline" / "config.json"
    config = read_json(path)
    config |= {"epochs": 5, "log_every_steps": 3}
    config["teacher"]["checkpoint"] = "elsewhere"
    write_json(path, config)
    findings = collect_findings(folder)
    assert findings["other_differences"] == ["epochs (5, and 2 with debiasing)"]
    findings["versions"] = {}
    blocks = [block for section in make_run_sections(findings) for block in section.blocks]
    shown = [block.text for block in blocks if isinstance(block, Text)]
    assert any("do not differ in debiasing alone, but in epochs (5" in text for text in shown)


def test_wishes_that_nothing_can_fulfil_are_one_line(make_report_run, tmp_path, capsys):
    folder, *_ = make_report_run()
    for arguments, message in (
        (["--against", str(folder)], "is a folder; name the report.json in it"),
        (["--figures", str(folder / "config.json")], "is a file; name a folder"),
    ):
        assert report.main([str(folder), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    with pytest.raises(SystemExit):
        report.main([str(folder), "--blur"])
    assert report.main([str(tmp_path), "--gallery", "2"]) == 2
    assert "of a single run" in capsys.readouterr().err
