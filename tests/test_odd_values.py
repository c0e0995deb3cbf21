"""Odd values of keys and flags: one line each."""

import math

import pytest

from configs import rkd_adv
from fairkd_jax.configs.base import list_keys
from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.parse import parse_recipe

NUMBERS = [key.name for key in list_keys() if isinstance(key.default, float) or key.default is float]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_not_finite_is_refused_in_one_line(name):
    """Also those of objectives that the run does not use."""
    *sections, key = name.split(".")
    for value in (math.inf, -math.inf, math.nan):
        config = rkd_adv.get_config()
        place = config
        for section in sections:
            place = place[section]
        place[key] = value
        with pytest.raises(UsageError) as refused:
            parse_recipe(config)
        assert key in str(refused.value)
        assert "\n" not in str(refused.value)


def test_numbers_in_lists_are_checked_too():
    config = rkd_adv.get_config()
    config.adversary.hidden = (math.inf,)
    with pytest.raises(UsageError, match=r"adversary\.hidden"):
        parse_recipe(config)
