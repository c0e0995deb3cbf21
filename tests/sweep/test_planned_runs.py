"""Planned runs of a sweep: points, shared teachers, commands, and runs that are complete already."""

import importlib
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.recipe.related import teacher_config
from fairkd_jax.recipe.values import normalize
from fairkd_jax.runs.folder import SWEEP_TEACHERS, config_diff, flatten, to_json_dict
from fairkd_jax.sweep import grid
from fairkd_jax.sweep.planned_runs import (
    OWN_TEACHER,
    format_dry_run,
    list_commands,
    make_job,
    plan_runs,
)
from tests.sweep.conftest import ROOT, make_config, write_run

CONFIGS = sorted(path for path in (ROOT / "configs").glob("[a-z]*.py") if path.stem != "base")
FILE = ROOT / "configs" / "rkd_adv.py"
AXES = {"adversary.weight": ["0.0", "0.5"], "seed": ["0", "1"]}


def planned(folder, axes=AXES, fixed=None, file=FILE, with_data=False):
    return plan_runs(make_config(file), axes, fixed or {}, folder, with_data=with_data)


def commands(run, **options):
    return list_commands(run, str(FILE), **{"validate": False, "probe": False} | options)


def complete(run, **options):
    for folder, config in run.students:
        steps = round(config["epochs"] * 100 / config["batch_size"])
        write_run(folder, config, last=steps, best=steps, **options)


def test_points_that_differ_in_nothing_of_a_teacher_share_it(tmp_path):
    runs = planned(tmp_path, {**AXES, "student.architecture": ["efficientnet_tiny", "efficientnet_mini"]})
    teachers, students = [r for r in runs if r.is_teacher], [r for r in runs if not r.is_teacher]
    assert (len(teachers), len(students)) == (2, 8)
    assert runs[:2] == teachers
    assert students[0].name == "adversary.weight=0.0,seed=0,student.architecture=efficientnet_tiny"
    for run in students:
        ((folder, config),) = run.students
        assert folder == tmp_path / run.name
        needed = next(teacher for teacher in teachers if teacher.name == run.teacher_name)
        assert needed.students[0][1]["seed"] == config["seed"]
        assert config["teacher"]["checkpoint"] == str(needed.folder)
        assert run.overrides["teacher.checkpoint"] == str(needed.folder)


def test_a_teacher_keeps_its_name_whatever_else_is_swept(tmp_path):
    def names(axes, fixed=None):
        return {run.name for run in planned(tmp_path, axes, fixed) if run.is_teacher}

    alone = names({"seed": ["0"]})
    assert len(alone) == 1
    assert alone < names(AXES)
    assert alone == names({"seed": ["0"]}, {"log_every_steps": 3, "ckd.weight": 0.5, "epochs": 3})
    assert not alone & names({"seed": ["0"]}, {"teacher.epochs": 3})
    assert len(names({"data.source": ["a", "b"]})) == 2


def test_a_teacher_keeps_its_name_under_the_earlier_name_of_a_value(tmp_path):
    """A sweep that began with it finds its teachers again."""
    rule = "data.wider_attribute.split_rule"
    wider = f"{FILE}:wider"
    runs = [planned(tmp_path, fixed={rule: value}, file=wider) for value in ("half_test", "capstone")]
    assert [run.name for run in runs[0] if run.is_teacher] == [run.name for run in runs[1] if run.is_teacher]
    assert "teachers/efficientnet_b3-seed0-bdef6c69" in [run.name for run in runs[0]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_commands_make_what_a_single_run_would_train(path, tmp_path):
    fixed = {"best.max_disparity": 0.1, "teacher.image_size": 48, "teacher.group_heads": True}
    make, changes = make_config(path), {key: str(value) for key, value in fixed.items()}
    single = normalize(make({"seed": "1", **changes}))
    runs = planned(tmp_path, {"seed": ["1"]}, fixed, path)
    point = runs[-1]
    made = normalize(make(point.overrides))
    changed = config_diff(to_json_dict(single), to_json_dict(made)) + config_diff(
        to_json_dict(made), to_json_dict(single)
    )
    assert {line.split()[0] for line in changed} <= OWN_TEACHER
    assert len(runs) == 1 + parse_recipe(single).uses_teacher
    if parse_recipe(single).uses_teacher:
        taught, wanted = normalize(make(runs[0].overrides)), to_json_dict(teacher_config(single))
        assert not config_diff(to_json_dict(taught), wanted) + config_diff(wanted, to_json_dict(taught))
        assert made.teacher.checkpoint == str(runs[0].folder)


def test_points_that_differ_in_what_a_given_teacher_hides_train_their_own(tmp_path):
    runs = planned(tmp_path, {"teacher.image_size": ["32", "48"], "seed": ["0", "1"]})
    assert len(runs) == 4
    assert not any(run.teacher_name or run.is_teacher for run in runs)
    assert {run.overrides["teacher.image_size"] for run in runs} == {"32", "48"}


def test_a_teacher_that_is_given_is_used(tmp_path):
    runs = planned(tmp_path, fixed={"teacher.checkpoint": "elsewhere"})
    assert not any(run.is_teacher or run.teacher_name for run in runs)
    assert {run.overrides["teacher.checkpoint"] for run in runs} == {"elsewhere"}


def test_a_point_may_be_a_population(tmp_path):
    runs = planned(tmp_path, {"epochs": ["1", "2"]}, {"population.seeds": (0, 1)})
    assert [len(run.students) for run in runs] == [1, 2, 2]
    point = runs[-1]
    assert [folder.parent for folder, _ in point.students] == [point.folder / "members"] * 2
    assert len(commands(point, validate=True)) == 3
    assert make_job(point, commands(point), {}).continue_on_failure
    complete(replace(point, students=point.students[1:]), scores=[("test", {}), ("val", {})])
    assert [command[0] for command in commands(point, validate=True)] == ["train", "eval"]
    complete(point)
    assert commands(point) == []


@pytest.mark.parametrize(
    ("axes", "fixed", "message"),
    [
        ({"adversary.weight": ["-1"]}, {}, "adversary.weight=-1.0: adversary.weight=-1.0 must be 0 or more"),
        ({"adversary.weight": ["1", "1.0"]}, {}, "two points are adversary.weight=1.0"),
        ({"seed": ["1"]}, {"seed": 2}, "seed is in --grid and in --config.seed"),
        ({"best.max_disparity": ["1"]}, {"best": {}}, "best.max_disparity is in --grid"),
        ({"best": ["{'max_disparity': 0.1}"]}, {}, "--grid best is a section"),
        ({"teacher.dtype": ["float8"]}, {}, "dtype='float8' is unknown"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path, axes, fixed, message):
    with pytest.raises(UsageError) as caught:
        planned(tmp_path, axes, fixed)
    assert message in str(caught.value)


def test_what_is_complete_is_not_done_again(tmp_path):
    teacher, *_, point = planned(tmp_path)
    train, probe, validate = commands(point, validate=True, probe=True)
    assert train[0] == "train"
    assert train[-1] == f"--workdir={point.folder}"
    assert probe == ("eval", f"--workdir={point.folder}", "--probe")
    assert validate == ("eval", f"--workdir={point.folder}", "--split=val")
    assert len(commands(teacher, validate=True, probe=True)) == 1
    complete(point)
    assert commands(point) == []
    assert commands(point, validate=True, probe=True) == [probe, validate]
    complete(point, scores=[("test", {"probe": {}}), ("val", {})])
    assert commands(point, validate=True, probe=True) == []
    complete(point, scores=[("val", {"step": 3})])  # of an earlier checkpoint
    assert commands(point, validate=True) == [validate]
    complete(point, scores=[("test", {"step": 3})])
    assert commands(point) == [train]
    (point.folder / "eval" / "test.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        commands(point)


def test_a_run_that_was_stopped_goes_on(tmp_path):
    *_, point = planned(tmp_path)
    write_run(point.folder, point.students[0][1], last=3, best=3)
    assert len(commands(point)) == 1
    (point.folder / "checkpoints" / "last" / "31.orbax-checkpoint-tmp-1").mkdir()
    assert len(commands(point)) == 1


def test_the_folder_of_another_run_is_refused(tmp_path):
    *_, point = planned(tmp_path)
    complete(point)
    *_, other = planned(tmp_path, fixed={"batch_size": 32})
    with pytest.raises(UsageError, match=r"another config: batch_size \(was 64, now 32\)"):
        commands(other)


def test_the_lines_of_a_dry_run_start_with_the_teachers(tmp_path):
    runs = planned(tmp_path)
    lines, advice = format_dry_run(runs, lambda run: commands(run, validate=True))
    assert len(lines) == 6
    assert advice == (
        "6 commands; 0 runs already complete; start the other lines only after the first 2 lines (teachers)"
        " have succeeded"
    )
    assert all(f"/{SWEEP_TEACHERS}/" in line.split("--workdir=")[1] for line in lines[:2])
    words = shlex.split(lines[2])
    assert words[:5] == ["python", "-m", "fairkd_jax", "train", f"--config={FILE}"]
    assert words[words.index("&&") + 1 :] == [
        "python",
        "-m",
        "fairkd_jax",
        "eval",
        f"--workdir={runs[2].folder}",
        "--split=val",
    ]
    for run in (runs[2], runs[4]):  # all of the first seed
        complete(run, scores=[("test", {}), ("val", {})])
    lines, advice = format_dry_run(runs, lambda run: commands(run, validate=True))
    assert len(lines) == 3
    assert advice.startswith("3 commands; 2 runs already complete; start")
    assert "after the first line (a teacher) has succeeded" in advice


def test_a_job_holds_all_that_a_machine_has_to_know(tmp_path):
    *_, point = planned(tmp_path)
    job = make_job(point, commands(point), {"A": "b"})
    assert (job.name, job.folder, job.cwd) == (point.name, str(point.folder), str(Path.cwd()))
    assert job.environment == {"A": "b"}
    # A worker's own surroundings may name several processes, which are none of this run's.
    ((*module, name), *_) = [(command[0], command[1], command[2]) for command in job.commands]
    assert (module, name) == (["-m", "fairkd_jax"], "train")
    assert [command[-1] for command in job.commands] == ["--nodistributed"]
    assert not job.continue_on_failure
    assert make_job(point, [], {}) is None


def test_values_that_are_one_have_one_name():
    module = importlib.import_module("configs.rkd_adv")
    values = flatten(module.get_config().to_dict())
    assert grid.make_point_name({"adversary.weight": values["adversary.weight"]}) == "adversary.weight=1.0"
