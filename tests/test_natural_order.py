"""Names stand in the order that people expect."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairkd_jax.natural_order import sort_names


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(13)],
        ["-2", "-1", "0", "1"],
        ["0.5", "1", "2.25", "10.0"],
        ["01", "1", "2"],  # equal numbers stand in the order of their texts
        ["adversary.weight=0.0", "adversary.weight=0.25", "adversary.weight=0.5", "adversary.weight=10.0"],
        ["lr=1e-05,seed=2", "lr=1e-05,seed=10", "lr=0.001,seed=1"],
        ["w=-10", "w=-2", "w=3"],
        ["age 0-9", "age 10-19", "age 100-109"],
        ["Female", "Male", "other"],
        ["class-2", "class-10"],
        ["e99999999999", "f1e9999"],  # no numbers that take memory
        ["", "a", "a1", "a1b"],
    ],
)
def test_numbers_are_compared_by_value(names):
    assert sort_names(reversed(names)) == names


@given(st.lists(st.integers(-(10**20), 10**20)))
def test_integers_of_any_length_are_sorted_as_integers(numbers):
    assert sort_names(map(str, numbers)) == list(map(str, sorted(numbers)))


@given(st.lists(st.text(max_size=12), unique=True))
def test_any_text_has_a_place_that_does_not_depend_on_the_order_before(names):
    assert sort_names(names) == sort_names(reversed(names))
    assert sorted(names) == sorted(sort_names(names))
