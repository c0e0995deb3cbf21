"""Contestants that run in turn, so that what disturbs the machine disturbs them alike."""

from collections.abc import Callable, Mapping
from typing import Any


def in_turn(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs every contestant once in each round.

    Args:
      contestants: by name, functions that run something and return its seconds.
      rounds: how many.

    Returns:
      The seconds of each contestant's rounds, in their order.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
    return seconds


def seconds_of_one(contestant: Any, runs: int) -> float:
    """Seconds of one run of what has `time(runs)`, on average over so many."""
    return contestant.time(runs) / runs
