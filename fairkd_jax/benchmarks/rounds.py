"""Contestants that run in turn, so that what disturbs the machine disturbs them alike."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)


def in_turn(contestants: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, list[float]]:
    """Runs every contestant once in each round.

    Args:
      contestants: by name, functions that run something and return its seconds.
      rounds: how many.

    Returns:
      The seconds of each contestant's rounds, in their order.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
    return seconds


def seconds_of_one(contestant: Any, runs: int) -> float:
    """Seconds of one run of what has `time(runs)`, on average over so many."""
    return contestant.time(runs) / runs


def runs_within(contestant: Any, seconds: float) -> int:
    """How many runs fit so many seconds, at least one; two runs are made before, which do not count."""
    contestant.time(2)
    return max(1, round(seconds / contestant.time(1)))


def compile_together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Runs functions that compile something, several at a time where there are many cores.

    Args:
      jobs: the functions.

    Returns:
      Their results, in their order.
    """
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        return list(pool.map(lambda job: job(), jobs))
