"""Evaluations that somebody has edited: one line, and never for a defect of the project."""

import json

import numpy as np
import pytest

from fairkd_jax.digests import read_arrays, write_arrays
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.odd_files import blame_odd_evaluations
from fairkd_jax.programs import card, report

ODD = {
    "student": (None, [], {}, 5),
    "teacher": (None, [], 5),
    "class_names": (None, 5, []),
    "counts": (None, [], 5, {}),
    "inflation": (None, [], 5),
    "student/disparity": (None, 5, "x", [1]),
    "student/accuracy": (None, "x", []),
    "student/corrected_interval": (None, [], [1], ["x", "y"]),
    "student/diagnostics": (None, [], 5),
    "student/objectives": (None, [], 5),
    "student/probe": (5, [], {"a": 5}),
}


@pytest.mark.parametrize("key", ODD)
def test_odd_values_are_one_line(key, make_report_run, capsys):
    folder, _, _ = make_report_run()
    path = folder / "eval" / "test.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    for value in ODD[key]:
        changed = json.loads(json.dumps(content))
        *sections, name = key.split("/")
        place = changed
        for section in sections:
            place = place[section]
        place[name] = value
        path.write_text(json.dumps(changed))
        for program in (report, card):
            code = program.main([str(folder)])
            said = capsys.readouterr().err.splitlines()
            assert (code, len(said)) in ((0, 0), (2, 1)), (value, said)


def test_an_odd_earlier_report_is_one_line(make_report_run, capsys):
    folder, _, _ = make_report_run()
    earlier = folder.parent / "earlier.json"
    for models in (None, [], 5, {"student": 5}, {"student": {"accuracy": "x"}}):
        earlier.write_text(json.dumps({"data": {}, "folder": "", "models": models}))
        code = report.main([str(folder), "--against", str(earlier)])
        said = capsys.readouterr().err.splitlines()
        assert (code, len(said)) in ((0, 0), (2, 1)), models


def test_a_teachers_predictions_of_other_images_are_refused(make_report_run, capsys):
    folder, _, _ = make_report_run()
    path = folder / "predictions" / "test.npz"
    arrays = read_arrays(path, "")
    for wrong in (arrays["label"][:3], arrays["label"] + 99, arrays["label"] * 0.5):
        write_arrays(path, arrays | {"teacher_prediction": np.asarray(wrong)})
        assert report.main([str(folder)]) == 2
        assert "predictions/test.npz cannot be read" in capsys.readouterr().err


def test_a_defect_stays_one_where_all_evaluations_have_their_hashes(make_report_run):
    folder, _, _ = make_report_run()
    with pytest.raises(ZeroDivisionError), blame_odd_evaluations(folder):
        raise ZeroDivisionError
    path = folder / "baseline" / "eval" / "test.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    with (
        pytest.raises(UsageError, match=r"baseline/eval/test\.json holds odd values .* --split test` again"),
        blame_odd_evaluations(folder),
    ):
        raise ZeroDivisionError
