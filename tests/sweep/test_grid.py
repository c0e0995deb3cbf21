"""Grids as text, and configs as the overrides that make them."""

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.sweep import grid
from tests.sweep.conftest import ROOT, make_config


def test_a_grid_is_read():
    given = ["adversary.weight=0.0,0.5", "seed=0", "adversary.hidden=(64,64),(8,)"]
    axes = grid.parse_grid([*given, "objectives=(cross_entropy,ckd),(cross_entropy)"])
    assert axes == {
        "adversary.weight": ["0.0", "0.5"],
        "seed": ["0"],
        "adversary.hidden": ["(64,64)", "(8,)"],
        "objectives": ["cross_entropy,ckd", "cross_entropy"],
    }
    combined = grid.list_points({"a": ["1", "2"], "b": ["3", "4"]})
    assert [tuple(point.values()) for point in combined] == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give at least one --grid"),
        (["seed"], "give a key and its values"),
        (["seed="], "give a key and its values"),
        (["=1"], "give a key and its values"),
        (["seed=0", "seed=1"], "--grid seed is there twice"),
        (["x=(1,2"], "brackets do not match"),
        (["x=1,2)"], "brackets do not match"),
        (["x=(1]"], "brackets do not match"),
    ],
)
def test_a_grid_that_cannot_be_read_is_refused(given, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        grid.parse_grid(given)


def test_names_are_safe_folders_and_differ_where_the_values_do():
    values = {"adversary.weight": 0.5, "seed": 1, "objectives": ("a", "b"), "data.source": ""}
    assert grid.make_point_name(values) == "adversary.weight=0.5,seed=1,objectives=a+b,data.source=empty"
    first, second = (grid.make_point_name({"finetune.frozen": (name,)}) for name in ("stem/*", "stem/?"))
    assert first != second
    for name in (first, grid.make_point_name({"data.source": "x" * 400})):
        assert len(name) <= 150
        assert not set(name) & set("/*? ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (("cross_entropy", "ckd"), "cross_entropy,ckd"),
        (("cross_entropy,ckd",), "cross_entropy,ckd"),
        (("a, b", "c"), "('a, b', 'c')"),
        (("1", "2"), "('1', '2')"),
        ((64, 64), "(64, 64)"),
        ((), "()"),
        (1e-5, "1e-05"),
        (True, "True"),
        ("", ""),
    ],
)
def test_values_are_written_as_the_command_line_takes_them(value, text):
    assert grid.format_value(value) == text


def test_overrides_make_one_config_into_another():
    make = make_config(ROOT / "configs" / "rkd_adv.py")
    wanted = make(
        {"teacher.image_size": "48", "best.max_disparity": "0.1", "objectives": "ckd,cross_entropy"}
    )
    wanted.data.manifest.class_names = ("a, b", "3")
    wanted.adversary.hidden = ()
    texts = grid.find_overrides(make({}).to_dict(), wanted.to_dict(), keep=["seed"])
    assert texts["seed"] == "0"
    assert texts["teacher.image_size"] == "48"
    made = make(texts)
    made.objectives = tuple(made.objectives[0].split(","))
    wanted.objectives = tuple(wanted.objectives[0].split(","))
    assert made.to_dict() == wanted.to_dict()


def test_a_key_that_becomes_empty_takes_its_section_with_it():
    make = make_config(ROOT / "configs" / "rkd_adv.py")
    base = make({"teacher.image_size": "48", "teacher.epochs": "3"})
    texts = grid.find_overrides(base.to_dict(), make({"teacher.dtype": "bfloat16"}).to_dict())
    assert list(texts) == ["teacher"]
    assert make(texts).to_dict() == make({"teacher.dtype": "bfloat16"}).to_dict()
