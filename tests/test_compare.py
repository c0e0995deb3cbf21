"""The comparison of runs as users see it: arms, tables, words, and what is refused."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from fairkd_jax.digests import read_json, write_arrays, write_json
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.compare import compare_runs
from fairkd_jax.evaluation.methods import find_differences, group_by_method, identify_run
from fairkd_jax.recipe.sections import ModelRecipe
from fairkd_jax.report import comparison_text
from fairkd_jax.runs.folder import RunConfig

ROOT = Path(__file__).parent.parent
CLASSES, GROUPS, IMAGES = ["cat", "dog", "owl"], ["dark", "light"], 240
MAD = "mean_abs_disparity"


def config_of(seed=0, weight=1.0, **changes):
    """A run's config, as far as it is read."""
    return {
        "seed": seed,
        "objectives": ["cross_entropy", "adversary"],
        "cross_entropy": {"weight": 1.0},
        "adversary": {"weight": weight, "hidden": [8]},
        "ckd": {"weight": 0.9},
        "student": dict.fromkeys(field.name for field in dataclasses.fields(ModelRecipe)),
        "teacher": {"checkpoint": "", "architecture": "big", "pretrained": "", "image_size": None},
        "optimizer": {"learning_rate": 0.1},
        "data": {"source": ""},
        "batch_size": 8,
        "epochs": 2,
        "log_every_steps": 10,
    } | changes


def images_of(number=0):
    rng = np.random.default_rng(number)
    ids = np.array([f"image {i}" for i in range(IMAGES)])
    return {"id": ids, "label": rng.integers(0, 3, IMAGES), "group": rng.integers(-1, 2, IMAGES)}


@pytest.fixture
def make_run(tmp_path):
    """Writes the folder of an evaluated run whose recall is lower by `bias` in the second group."""

    def make(name, config, bias=0.0, *, recall=0.8, images=None, teacher="t", classes=CLASSES, draw=None):
        folder, images = tmp_path / name, images or images_of()
        rng = np.random.default_rng(draw if draw is not None else config["seed"])
        right = rng.random(IMAGES) < recall - bias * (images["group"] == 1)
        prediction = np.where(right, images["label"], (images["label"] + 1) % 3)
        task = {
            "dataset": "animals",
            "class_names": classes,
            "group_names": GROUPS,
            "num_examples": {"test": IMAGES},
            "digests": {"test": "d"},
        }
        if teacher:
            task["teacher"] = {"architecture": "big", "step": 3, "fingerprint": teacher}
        for part in ("eval", "predictions"):
            (folder / part).mkdir(parents=True)
        write_json(folder / "config.json", config | {"task": task})
        write_json(folder / "eval" / "test.json", {"student": {"accuracy": 0.5}, "checkpoint": "best"})
        arrays = images | {"student_prediction": prediction.astype(np.int32)}
        write_arrays(folder / "predictions" / "test.npz", arrays)
        return folder

    return make


@pytest.fixture
def two_arms(make_run):
    """Three seeds with bias and three without, of teachers that differ from seed to seed."""
    biased = [make_run(f"b{s}", config_of(s, 0.0), 0.5, teacher=f"t{s}", draw=s) for s in range(3)]
    fair = [make_run(f"a{s}", config_of(s), 0.0, teacher=f"t{s}", draw=10 + s) for s in range(3)]
    return biased, fair


def gaps_of(folder):
    """Accuracy and mean |gap|, image by image."""
    with np.load(folder / "predictions" / "test.npz") as arrays:
        label, group = arrays["label"], arrays["group"]
        right = arrays["student_prediction"] == label
    gaps = [abs(np.subtract(*(right[(group == g) & (label == c)].mean() for g in (0, 1)))) for c in range(3)]
    return right.mean(), np.mean(gaps)


@pytest.fixture
def start(forks):
    return functools.partial(forks.run, "scripts/compare_runs.py")


def test_the_program_compares_and_writes_everything(start, two_arms, tmp_path):
    biased, fair = two_arms
    mixed = [biased[1], fair[0], biased[0], fair[2], biased[2], fair[1]]
    printed = start(*mixed, "--split", "test", f"--json={tmp_path / 'found.json'}")
    assert printed.returncode == 0, printed.stderr
    assert not printed.stderr
    first, *_ = printed.stdout.splitlines()
    assert first == f"animals, test: {IMAGES} images in 3 classes, groups dark, light"
    assert "adversary.weight=1.0 minus adversary.weight=0.0, seeds 0, 1, 2" in printed.stdout
    assert (
        f"adversary.weight=0.0, the reference: {biased[0]} (seed 0), {biased[1]} (seed 1)" in printed.stdout
    )
    assert "Mean absolute disparity is lower, by 0." in printed.stdout
    assert "Accuracy is higher, by 0." in printed.stdout
    assert "unbiased" not in printed.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["comparisons"][0]["teachers"] == "same"
    gap = found["comparisons"][0]["over_seeds"][MAD]
    expected = np.array([gaps_of(a)[1] - gaps_of(b)[1] for a, b in zip(fair, biased, strict=True)])
    np.testing.assert_allclose(gap["differences"], expected)
    assert gap["mean"] == pytest.approx(expected.mean())
    assert gap["holm_p"] == gap["p"] < 0.05
    arm = found["arms"][1]
    assert arm["mean"]["accuracy"] == pytest.approx(np.mean([gaps_of(a)[0] for a in fair]))
    assert arm["deviation"][MAD] == pytest.approx(np.std([gaps_of(a)[1] for a in fair], ddof=1))


def test_the_program_compares_on_the_split_that_is_asked_for(start, make_run, tmp_path):
    """Here on validation; on test the same runs answer differently."""
    runs = [make_run("first", config_of(weight=0.0)), make_run("second", config_of(), draw=5)]
    images, shares = images_of(3), (0.25, 0.5)
    for folder, share in zip(runs, shares, strict=True):
        (folder / "eval" / "val.json").write_bytes((folder / "eval" / "test.json").read_bytes())
        prediction = np.where(np.arange(IMAGES) < share * IMAGES, images["label"], (images["label"] + 1) % 3)
        write_arrays(folder / "predictions" / "val.npz", images | {"student_prediction": prediction})
    printed = start(*runs, "--split=val", f"--json={tmp_path / 'found.json'}")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith(f"animals, val: {IMAGES} images in 3 classes")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [arm["mean"]["accuracy"] for arm in found["arms"]] == list(shares)


def test_the_program_says_a_mistake_in_one_line(start, two_arms):
    (first, *_), _ = two_arms
    refused = start(first, "--split=test")
    assert refused.returncode == 2
    assert refused.stderr == "compare_runs.py: a comparison needs the folders of two runs or more\n"


def test_seeds_of_one_arm_have_nothing_to_compare_with(two_arms, make_run):
    biased, _ = two_arms
    # Logged more often, of another teacher, and with another weight of an objective that none uses.
    config = config_of(7, 0.0, log_every_steps=1, ckd={"weight": 5.0})
    config["teacher"] |= {"checkpoint": "/elsewhere"}
    other = make_run("other", config, teacher="elsewhere")
    result = compare_runs([*biased, other], num_resamples=10)
    assert len(result["arms"]) == 1
    text = comparison_text.format_comparison(result)
    assert "nothing to compare with" in text
    assert [line.split()[0] for line in text.splitlines()[4:10]] == ["0", "1", "2", "7", "mean", "standard"]


def test_one_seed_tells_no_methods_apart(make_run):
    runs = [make_run("a", config_of(weight=0.0), 0.5), make_run("b", config_of(), recall=0.6, draw=5)]
    result = compare_runs(runs, num_resamples=500)
    text = comparison_text.format_comparison(result)
    assert "One seed cannot tell methods apart" in text
    assert "is lower" not in text
    assert result["comparisons"][0]["over_seeds"][MAD]["verdict"] == "one seed"
    assert result["comparisons"][0]["over_images"][MAD]["p"] < 0.05


def test_two_seeds_are_called_too_few_and_not_a_difference_that_is_not_there(make_run):
    recall = {(0.0, 0): 0.85, (0.0, 1): 0.89, (1.0, 0): 0.62, (1.0, 1): 0.52}
    runs = [
        make_run(f"{w}{s}", config_of(s, w), recall=share, draw=s + 10 * int(w))
        for (w, s), share in recall.items()
    ]
    result = compare_runs(runs, num_resamples=10)
    found = result["comparisons"][0]["over_seeds"]
    assert found["accuracy"]["mean"] < -0.2
    assert found["accuracy"]["p"] > 0.05
    assert found["accuracy"]["verdict"] == found[MAD]["verdict"] == "too few seeds"
    text = comparison_text.format_comparison(result)
    assert "Accuracy: 2 seeds are too few to tell (-0." in text
    assert "Mean absolute disparity: 2 seeds are too few to tell (" in text
    assert "no difference detected" not in text


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_difference_that_all_seeds_have_alike(seeds, make_run):
    """Models without errors, and models of the same answers in each seed."""
    runs = [
        make_run(f"{w}{s}", config_of(s, w), recall=1.0 if w else 0.7, draw=3)
        for w in (1.0, 0.0)
        for s in range(seeds)
    ]
    same = [make_run(f"same{s}", config_of(s, 2.0), recall=1.0) for s in range(seeds)]
    result = compare_runs([*runs, *same], num_resamples=20)
    text = comparison_text.format_comparison(result)
    few = f"{seeds} seeds are too few to tell how much it varies between seeds."
    assert ("how much it varies between seeds is not known" in text) == (seeds == 5)
    assert ("Accuracy is the same in each seed: " + few in text) == (seeds < 5)
    assert text.count("in each seed alike: " + few) == 2 * (seeds < 5)
    images = result["comparisons"][1]["over_images"]
    assert np.isnan([images[key][end] for key in (MAD, "accuracy") for end in ("low", "high")]).all()
    assert "0.0000 to" not in text.split("adversary.weight=2.0 minus")[1]


def test_no_difference_is_said_with_what_would_have_been_found(make_run):
    runs = [make_run(f"{w}{s}", config_of(s, w), draw=s + 10 * int(w)) for w in (0.0, 1.0) for s in range(5)]
    result = compare_runs(runs, num_resamples=100)
    size = result["comparisons"][0]["over_seeds"][MAD]["detectable"]
    text = comparison_text.format_comparison(result)
    assert "Mean absolute disparity: no difference detected (" in text
    assert f"one of {size:.4f} would have been found with 80 % power" in text
    assert "learn from one teacher" in text


def test_accuracy_that_falls_with_disparity_is_said(make_run):
    runs = [make_run(f"b{s}", config_of(s, 0.0), 0.5, recall=0.95) for s in range(4)]
    runs += [make_run(f"a{s}", config_of(s), recall=0.3, draw=s + 9, teacher=f"u{s}") for s in range(4)]
    text = comparison_text.format_comparison(compare_runs(runs, num_resamples=100))
    assert "Accuracy is lower too, by 0." in text
    assert "the same answer has a disparity of 0" in text
    assert "different teachers" in text


@pytest.mark.parametrize("accuracy", ["lower", "higher"])
@pytest.mark.parametrize("disparity", ["lower", "higher"])
def test_one_answer_for_all_is_minded_only_where_both_are_lower(accuracy, disparity, make_run):
    recall, bias = {"lower": (0.95, 0.55), "higher": (0.6, 0.95)}, {"lower": (0.5, 0.0), "higher": (0.0, 0.3)}
    first, second = zip(recall[accuracy], bias[disparity], strict=True)
    runs = [
        make_run("a", config_of(weight=0.0), first[1], recall=first[0]),
        make_run("b", config_of(), second[1], recall=second[0], draw=5),
    ]
    result = compare_runs(runs, num_resamples=10)
    over_seeds = result["comparisons"][0]["over_seeds"]
    for key, way in ((MAD, disparity), ("accuracy", accuracy)):
        assert (over_seeds[key]["mean"] < 0) == (way == "lower")
    said = "the same answer has a disparity of 0" in " ".join(
        comparison_text.format_comparison(result).split()
    )
    assert said == (accuracy == disparity == "lower")


def test_several_arms_are_corrected_and_lambda_belongs_on_validation(make_run):
    runs = [
        make_run(f"{w}-{s}", config_of(s, w), 0.5 if w == 0.0 else 0.0, draw=s + 10 * int(w))
        for w in (0.0, 1.0, 2.0)
        for s in range(4)
    ]
    runs.append(make_run("extra", config_of(9, 2.0)))
    result = compare_runs(runs, num_resamples=100)
    one, two = (entry["over_seeds"][MAD] for entry in result["comparisons"])
    assert sorted([one["holm_p"], two["holm_p"]]) == sorted(
        [2 * min(one["p"], two["p"]), max(2 * min(one["p"], two["p"]), max(one["p"], two["p"]))]
    )
    for entry in result["comparisons"]:  # accuracy is never corrected
        assert entry["over_seeds"]["accuracy"]["holm_p"] == entry["over_seeds"]["accuracy"]["p"]
    text = comparison_text.format_comparison(result)
    assert text.count("by Holm's correction for 2 comparisons") == 2
    sentences = [line for line in text.splitlines() if line.startswith("Accuracy")]
    assert not any("Holm" in line for line in sentences)
    assert "Accuracy is never corrected for several comparisons" in sentences[-1]
    assert "Left out: seed 9 of adversary.weight=2.0, which adversary.weight=0.0 lacks." in text
    assert "chosen on validation" in text


def test_arms_are_named_by_what_differs_or_by_their_folders(make_run):
    first = make_run("a", config_of())
    epochs = make_run("b", config_of(epochs=3), teacher="")
    names = [arm["name"] for arm in compare_runs([epochs, first], num_resamples=10)["arms"]]
    assert names == ["epochs=3", "epochs=2"]
    long = make_run("c", config_of(objectives=["a" * 50, "b" * 50]))
    names = [arm["name"] for arm in compare_runs([first, long], num_resamples=10)["arms"]]
    assert names == [str(first), str(long)]
    grown = make_run(
        "d",
        config_of()
        | {
            "student": dict.fromkeys(field.name for field in dataclasses.fields(ModelRecipe))
            | {"dtype": "float32"}
        },
    )
    names = [arm["name"] for arm in compare_runs([first, grown], num_resamples=10)["arms"]]
    assert names == ["student.dtype=unset", "student.dtype=float32"]


def test_runs_are_grouped_as_pair_by_pair():
    """Keys spare most comparisons; the groups are those of the rule for two runs."""
    teachers = [{"checkpoint": ""}, {"checkpoint": "", "pretrained": "a"}, {"checkpoint": "b"}]
    configs = [
        config_of(seed, weight) | {"teacher": config_of()["teacher"] | teacher}
        for seed, weight, teacher in itertools.product((0, 1), (1.0, 1, 0.5), teachers)
    ]
    configs.append(config_of(2) | {"ckd": {"weight": 0.1}, "log_every_steps": 3})
    runs = [identify_run(RunConfig(config, {"class_names": CLASSES}, {})) for config in configs]
    expected = []
    for place, run in enumerate(runs):
        group = next((group for group in expected if not find_differences(runs[group[0]], run)), None)
        if group is None:
            expected.append(group := [])
        group.append(place)
    assert group_by_method(runs) == expected
    assert len(expected) == 4


def test_a_given_teacher_makes_another_arm_by_its_architecture_alone(make_run):
    own = config_of(0)
    own["teacher"] |= {"pretrained": "weights.pth"}
    given, larger = config_of(1), config_of(1)
    for config in (given, larger):
        config["teacher"] |= {"checkpoint": "/elsewhere"}
    runs = [make_run("own", own), make_run("given", given)]
    assert len(compare_runs(runs, num_resamples=10)["arms"]) == 1
    other = make_run("larger", larger)
    content = read_json(other / "config.json")
    content["task"]["teacher"]["architecture"] = "huge"
    write_json(other / "config.json", content)
    names = [arm["name"] for arm in compare_runs([*runs, other], num_resamples=10)["arms"]]
    assert names == ["teacher.architecture=big", "teacher.architecture=huge"]


def refusal(runs, split="test"):
    with pytest.raises(UsageError) as caught:
        compare_runs(runs, split=split, num_resamples=10)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_runs_that_cannot_be_compared_are_refused(make_run, tmp_path):
    first = make_run("first", config_of())
    assert "same seed 0; leave one of them out" in refusal([first, make_run("again", config_of())])
    lonely = make_run("lonely", config_of(4, 0.0))
    assert "(seeds 4) and adversary.weight=1.0 (seeds 0) have no seed in common" in refusal([first, lonely])
    other = make_run("other", config_of(1), images=images_of(1))
    assert "evaluated on other test images" in refusal([first, other])
    assert "other classes" in refusal([first, make_run("fish", config_of(1), classes=["cat", "dog", "fish"])])
    last = make_run("last", config_of(1, 0.0))
    (last / "eval" / "test.json").write_text('{"student": {}, "checkpoint": "last"}')
    assert "test.json holds the scores of the checkpoint last; run `fairkd-eval" in refusal([first, last])
    assert f"run `fairkd-eval {first} --split val` first" in refusal([first, lonely], "val")
    assert "holds no run" in refusal([first, tmp_path / "nowhere"])


def test_another_checkpoint_is_compared_where_it_is_asked_for(make_run, start):
    """The two runs differ at their last checkpoints alone."""
    runs = [make_run("a", config_of(), draw=3), make_run("b", config_of(weight=0.0), draw=3)]
    for run in runs:
        best = read_json(run / "eval" / "test.json")
        with np.load(run / "predictions" / "test.npz") as file:
            arrays = {name: file[name] for name in file.files if name != "sha256"}
        if run == runs[1]:
            arrays["student_prediction"] = arrays["label"]
        best["student"]["step"] = arrays["student_step"] = 7
        write_json(run / "eval" / "test.last.json", best | {"checkpoint": "last"})
        write_arrays(run / "predictions" / "test.last.npz", arrays)
    assert "differs by +0.0000" in start(*runs).stdout.replace("-0.0000", "+0.0000")
    printed = start(*runs, "--checkpoint", "last").stdout
    assert "Scored at the checkpoint last of each run, not at its best." in printed
    assert "differs by +0.0000" not in printed.replace("-0.0000", "+0.0000")
    refused = start(*runs, "--checkpoint", "120")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{runs[0]} was not evaluated on test at its checkpoint 120; run `fairkd-eval" in refused.stderr
    assert "--checkpoint 120` first" in refused.stderr


def test_scores_and_predictions_of_two_steps_are_not_mixed(make_run):
    runs = [make_run("a", config_of()), make_run("b", config_of(weight=0.0))]
    path = runs[1] / "predictions" / "test.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "sha256"}
    write_arrays(path, arrays | {"student_step": np.array(8)})
    write_json(runs[1] / "eval" / "test.json", {"student": {"step": 4}, "checkpoint": "best"})
    assert "test.npz cannot be read (of step 8, but test.json of step 4); run" in refusal(runs)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "config.json is damaged"),
        ("eval/test.json", b"[", "test.json cannot be read"),
        ("eval/test.json", b"{}", "no student in it"),
        ("predictions/test.npz", b"PK\x03\x04 cut short", "test.npz cannot be read"),
        ("predictions/test.npz", {"student_prediction": np.zeros(3, np.int32)}, "unequal lengths"),
        ("predictions/test.npz", {"student_prediction": np.full(IMAGES, 3)}, "beyond the 3 classes"),
        ("predictions/test.npz", {"student_prediction": np.full(IMAGES, 0.5)}, "cannot be read"),
        ("predictions/test.npz", {"student_prediction": np.full(IMAGES, None)}, "allow_pickle=False"),
    ],
)
def test_damaged_files_are_one_line(make_run, file, content, message):
    runs = [make_run("a", config_of()), make_run("b", config_of(weight=0.0))]
    path = runs[1] / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **images_of() | content)
    assert message in refusal(runs)
