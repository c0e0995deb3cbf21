"""What tests compile is kept: else they would take twice their time, and nobody would see why."""

from tests.cached_program import HIT, events


def test_what_was_compiled_is_found_again():
    """However small it is; some versions of jax rejected their own entries on some processors."""
    events()
    assert events() == {HIT}


def test_programs_find_it_too(forks):
    for _ in range(2):
        ended = forks.run("tests/cached_program.py")
        assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"['{HIT}']"
