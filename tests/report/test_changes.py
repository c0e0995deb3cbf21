"""What moved since an earlier report."""

import json

import pytest

from fairkd_jax.digests import read_json, write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.programs import report
from fairkd_jax.report.blocks import Table, Text
from fairkd_jax.report.changes import read_earlier_report, show_changes


def rows_of(section):
    return {row[0]: row[1:] for block in section.blocks if isinstance(block, Table) for row in block.rows}


def test_each_number_that_moved_is_there_with_both_values(make_report_run, tmp_path):
    folder, _, _ = make_report_run()
    path = tmp_path / "old.json"
    report.write_report(folder)
    now = read_json(folder / "report.json")
    old = json.loads(json.dumps(now))
    assert rows_of(show_changes(old, now)) == {}
    old["models"]["student"]["accuracy"] = now["models"]["student"]["accuracy"] - 0.25
    del old["models"]["teacher"]["rates"]  # an earlier version
    write_json(path, old)
    rows = rows_of(show_changes(read_earlier_report(path), now))
    assert rows["student: top-1 accuracy"][2] == "+0.2500"
    before, after, change = rows["teacher: demographic parity difference (SPD)"]
    assert (before, change) == ("n/a", "n/a")
    assert float(after) == pytest.approx(now["models"]["teacher"]["rates"]["spd"], abs=1e-4)
    assert len(rows) == 5
    assert report.main([str(folder), "--against", str(path)]) == 0
    assert "Since the earlier report" in (folder / "report.html").read_text(encoding="utf-8")
    old["data"]["num_examples"] = {"test": 1}
    texts = [block.text for block in show_changes(old, now).blocks if isinstance(block, Text)]
    assert any("data of the two reports differ" in text for text in texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("[]", "cannot be read"),
        ("{}", "it is no report"),
        ("{", "cannot be read"),
    ],
)
def test_a_file_that_is_no_report_is_one_line(make_report_run, tmp_path, capsys, content, message):
    folder, _, _ = make_report_run(baseline=False)
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    assert report.main([str(folder), "--against", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (folder / "report.html").exists()


def test_a_run_is_not_compared_with_a_sweep():
    run = {"data": {}, "folder": "a", "models": {}}
    with pytest.raises(UsageError, match="one report is on a run"):
        show_changes(run, {"data": {}, "folder": "b", "methods": []})
