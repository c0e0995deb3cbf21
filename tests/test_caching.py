"""What tests compile is kept: else they would take twice their time, and nobody would see why."""

import random

from tests.cached_program import HIT, MISSED, events


def test_what_was_compiled_is_found_again():
    """However small it is; some versions of jax rejected their own entries on some processors."""
    number = random.random()  # that no run before has compiled
    assert MISSED in events(number)
    assert events(number) == {HIT}


def test_programs_find_it_too(forks):
    number, said = random.random(), []
    for _ in range(2):
        ended = forks.run("tests/cached_program.py", number)
        assert ended.returncode == 0, ended.stderr
        said.append(ended.stdout.strip())
    assert MISSED in said[0]
    assert said[1] == f"['{HIT}']"
