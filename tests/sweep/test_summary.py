"""All runs of a folder in one table, and what validation chooses."""

import csv
import math

import pytest
from pyarrow import parquet

from fairkd_jax.digests import read_json, write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.choice import choose_method
from fairkd_jax.evaluation.collect import find_runs
from fairkd_jax.recipe.values import normalize
from fairkd_jax.sweep.summary import write_summary
from tests.sweep.conftest import ROOT, make_config, write_run

MAD = "mean_abs_disparity"


@pytest.fixture
def make_run(tmp_path):
    make = make_config(ROOT / "configs" / "rkd_adv.py")

    def run(name, texts=None, *, test=None, val=None, **others):
        scores = [("test", test or {}), *([("val", val)] if val is not None else [])]
        folder = tmp_path / "all" / name
        write_run(folder, normalize(make(texts or {})), scores=scores, **others)
        return folder

    run.folder = tmp_path / "all"
    return run


def table(folder):
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_summary_marks_what_validation_chooses_whatever_test_says(make_run):
    scores = {f"corrected_{MAD}": 0.1, "corrected_interval": [0.0, 1.0]}
    for name, weight, test, val in (("a", "1.0", 0.95, 0.5), ("b", "2.0", 0.5, 0.95)):
        own = {"test": scores | {"accuracy": test}, "val": scores | {"accuracy": val}}
        make_run(name, {"adversary.weight": weight}, **own)
    write_summary(make_run.folder, None, 0.01)
    assert [row["choice"] for row in table(make_run.folder)] == ["False", "True"]


def test_no_text_is_a_formula_and_numbers_stay_numbers(make_run):
    for name in ("=1+1", "-x", "@a", "plain"):
        make_run(name, {"seed": str(len(name))}, test={MAD: -0.02})
    write_summary(make_run.folder, None, 0.01)
    rows = table(make_run.folder)
    assert {row["run"] for row in rows} == {"'=1+1", "'-x", "'@a", "plain"}
    assert {row[MAD] for row in rows} == {"-0.02"}
    assert {row["run"] for row in parquet.read_table(make_run.folder / "summary.parquet").to_pylist()} == {
        "=1+1",
        "-x",
        "@a",
        "plain",
    }


def test_rows_are_in_the_order_of_their_numbers(make_run):
    for weight in ("2.0", "0.5", "10.0", "0.25"):
        make_run(f"adversary.weight={weight}", {"adversary.weight": weight})
    write_summary(make_run.folder, None, 0.01)
    assert [row["adversary.weight"] for row in table(make_run.folder)] == ["0.25", "0.5", "2.0", "10.0"]


def test_everything_is_gathered_in_two_files(make_run):
    probe = {"embedding": {"linear": {"advantage": 0.3, "accuracy": 0.7}}}
    make_run(
        "a", {"seed": "1"}, test={"probe": probe}, val={"accuracy": 0.95, "corrected_interval": [0.0, 1.0]}
    )
    scores = {"accuracy": 0.8, MAD: 0.1, f"corrected_{MAD}": None}
    lines = [{"step": 900, "validation/accuracy": 0.5}, {"step": 1000, "loss": 1.0}]
    lines.append({"step": 1000, **{f"validation/{key}": value for key, value in scores.items()}})
    make_run("b", {"adversary.weight": "0.5", "log_every_steps": "3"}, test={"accuracy": 0.7}, lines=lines)
    text = write_summary(make_run.folder, None, 0.01)
    rows = table(make_run.folder)
    assert rows == [
        {key: "" if value is None else str(value) for key, value in row.items()}
        for row in parquet.read_table(make_run.folder / "summary.parquet").to_pylist()
    ]
    first, second = rows
    assert list(first)[:4] == ["run", "adversary.weight", "seed", "accuracy"]
    assert (first["run"], first["adversary.weight"], first["seed"]) == ("a", "1.0", "1")
    assert (second["run"], second["adversary.weight"], second["seed"]) == ("b", "0.5", "0")
    assert (first["accuracy"], first["val_accuracy"], first["val_corrected_high"]) == ("0.9", "0.95", "1.0")
    assert (second["accuracy"], second["val_accuracy"], second[f"val_{MAD}"]) == ("0.7", "0.8", "0.1")
    assert (
        second[f"val_corrected_{MAD}"]
        == second["val_corrected_low"]
        == second["probe/embedding_linear"]
        == ""
    )
    assert (first["corrected_low"], first["any_bias_p"], first["d2"]) == ("0.1", "0.01", "0.02")
    assert (first["gap/cat"], first["gap/dog"], first["probe/embedding_linear"]) == ("0.1", "-0.3", "0.3")
    assert (first["choice"], second["choice"]) == ("True", "False")
    title, _, star = text.splitlines()[:3]
    assert title.split()[:6] == ["run", "adversary.weight", "seed", "accuracy", "MAD", "corrected"]
    assert star.startswith("a *  ")


def test_keys_that_only_some_methods_use_are_in_the_files_alone(make_run):
    make_run("a", {"seed": "1"})
    make_run("b", {"objectives": "cross_entropy,ckd"})
    text = write_summary(make_run.folder, None, 0.01)
    assert {row["ckd.temperature"] for row in table(make_run.folder)} == {"", "4.0"}
    assert "ckd.temperature" not in text
    assert "cross_entropy+ckd" in text


def test_what_is_a_run_and_what_belongs_to_one(make_run):
    for name in (
        "teachers/t",  # of the sweep
        "a",
        "a/teacher",
        "a/baseline",
        "b/members/seed=0",
        "b/members/seed=1",
        "b/teacher",
        "c/d/teacher",  # a run that happens to be called so
    ):
        make_run(name)
    folder = make_run.folder
    found = [str(run.relative_to(folder)) for run in find_runs(folder)]
    assert found == ["a", "b/members/seed=0", "b/members/seed=1", "c/d/teacher"]
    assert [run.name for run in find_runs(folder / "a")] == ["a"]
    (folder / "b" / "members" / "seed=1" / "eval" / "test.json").unlink()
    assert "Left out, as not evaluated yet: 1 run." in write_summary(folder, None, 0.01)
    assert len(table(folder)) == 3


def test_validation_is_of_the_checkpoint_that_was_tested(make_run):
    """Not of the one before the run was made longer, nor of another one that was scored in between."""
    line = {"step": 1000, "validation/accuracy": 0.8, f"validation/corrected_{MAD}": 0.1}
    make_run("a", val={"accuracy": 0.2, "step": 400}, lines=[line])
    write_summary(make_run.folder, None, 0.01)
    assert table(make_run.folder)[0]["val_accuracy"] == "0.8"


def test_scores_of_another_checkpoint_than_the_best_are_none_of_the_sweep(make_run):
    make_run("a", {"seed": "1"})
    folder = make_run("b", {"seed": "2"})
    scores = read_json(folder / "eval" / "test.json")
    scores["student"] |= {"accuracy": 0.1234}
    write_json(folder / "eval" / "test.last.json", scores | {"checkpoint": "last"})
    assert "0.1234" not in write_summary(make_run.folder, None, 0.01)
    write_json(folder / "eval" / "test.json", scores | {"checkpoint": "last"})  # as an earlier version did
    text = write_summary(make_run.folder, None, 0.01)
    assert "0.1234" not in text
    assert "Left out, as not evaluated yet: 1 run." in text


def test_what_is_left_out_is_told_with_the_reason(make_run):
    make_run("a")
    (make_run("b") / "diverged.txt").write_text("loss not finite\n")
    make_run("c", {"epochs": "2000"})  # it was made longer since
    make_run("d", test={"step": 900})
    text = write_summary(make_run.folder, None, 0.01)
    assert [row["run"] for row in table(make_run.folder)] == ["a"]
    assert "Left out, as diverged: 1 run." in text
    assert "Left out, as trained further since it was evaluated: 2 runs." in text


def test_a_seed_with_two_teachers_is_no_second_seed(make_run):
    line = {"step": 1000, "validation/accuracy": 0.9, f"validation/corrected_{MAD}": 0.1}
    for name, accuracy, teacher in (("a", 0.9, "first"), ("b", 0.5, "second"), ("c", 0.5, "second")):
        seed = "1" if name == "c" else "0"
        folder = make_run(name, {"seed": seed}, lines=[line | {"validation/accuracy": accuracy}])
        content = read_json(folder / "config.json")
        content["task"]["teacher"] = {"architecture": "x", "step": 1, "fingerprint": teacher}
        write_json(folder / "config.json", content)
    text = write_summary(make_run.folder, None, 0.01)
    assert "Chosen: a (seeds 0)" in text
    assert [row["teacher"] for row in table(make_run.folder)] == ["first", "second", "second"]


@pytest.mark.parametrize(("bound", "margin"), [(None, -1.0), (None, math.nan), (-0.1, 0.0)])
def test_numbers_without_sense_are_refused(bound, margin, make_run):
    make_run("a")
    with pytest.raises(UsageError, match="must be 0 or more"):
        write_summary(make_run.folder, bound, margin)


def test_folders_that_hold_nothing_are_refused(make_run, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        write_summary(tmp_path / "nowhere", None, 0.01)
    run = make_run("a")
    (run / "eval" / "test.json").unlink()
    with pytest.raises(UsageError, match="holds no evaluated run"):
        write_summary(make_run.folder, None, 0.01)
    make_run("a", test={"any_bias_p": "x"})
    (run / "eval" / "test.json").write_text('{"student": {}}')
    with pytest.raises(UsageError, match=r"test.json cannot be read .* run `fairkd-eval .*a"):
        write_summary(make_run.folder, None, 0.01)
    assert not list(make_run.folder.glob("summary*"))


def chosen(methods, max_disparity=None, margin=0.01, images="v"):
    """Chooses among `name -> [(accuracy, disparity) of each seed]`."""
    rows, names = [], []
    for name, pairs in methods.items():
        for seed, (accuracy, disparity) in enumerate(pairs):
            rows.append(
                {
                    "run": f"{name}{seed}",
                    "seed": seed,
                    "val_accuracy": accuracy,
                    f"val_corrected_{MAD}": disparity,
                    "accuracy": 1.0 - accuracy,  # test says the contrary, and is not asked
                }
            )
            names.append(name)
    found = choose_method(rows, names, [images] * len(rows), max_disparity=max_disparity, margin=margin)
    return [rows[place]["run"] for place in found.rows], found.reason


def test_the_least_disparity_within_the_margin_is_chosen():
    methods = {
        "plain": [(0.95, 0.20), (0.93, 0.20)],
        "fair": [(0.94, 0.11), (0.93, 0.09)],
        "fairer": [(0.90, 0.01), (0.95, 0.01)],
    }
    runs, words = chosen(methods)
    assert runs == ["fair0", "fair1"]
    assert "accuracy 0.9350, disparity 0.1000 there" in words
    assert "seeds 0, 1" in words
    assert "Note" not in words
    assert chosen(methods, margin=0.1)[0] == ["fairer0", "fairer1"]
    assert chosen(methods, margin=0.0)[0] == ["plain0", "plain1"]


def test_the_most_accurate_within_a_bound_is_chosen():
    methods = {"plain": [(0.95, 0.20)], "fair": [(0.90, 0.05)], "fairer": [(0.89, 0.01)]}
    assert chosen(methods, 0.1)[0] == ["fair0"]
    assert chosen(methods, 0.3)[0] == ["plain0"]
    runs, words = chosen(methods, 0.001)
    assert runs == []
    assert "no method is within 0.001" in words


def test_what_is_not_known_is_not_chosen():
    methods = {"a": [(0.9, 0.2)], "b": [(0.9, 0.0), (0.9, None)], "c": [(math.nan, 0.0)]}
    assert chosen(methods)[0] == ["a0"]
    runs, words = chosen({"b": methods["b"]})
    assert runs == []
    assert "no method has both accuracy and disparity on validation" in words


def test_a_method_with_fewer_seeds_is_pointed_out():
    runs, words = chosen({"a": [(0.9, 0.2), (0.9, 0.2)], "b": [(0.9, 0.1)]})
    assert runs == ["b0"]
    assert "Note that the methods have 1 to 2 seeds" in words


def test_runs_of_different_images_are_not_chosen_among():
    rows = [{"run": "a"}, {"run": "b"}]
    found = choose_method(rows, ["a", "b"], ["v", "w"], max_disparity=None, margin=0.01)
    assert found.rows == ()
    assert "different images" in found.reason
