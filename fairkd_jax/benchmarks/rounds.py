"""Rounds of measurements: contestants run in turn, so a disturbance of the machine affects all of them."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Contestant(Protocol):
    """A program that can be measured."""

    def measure_seconds(self, runs: int) -> float:
        """Measures the seconds of a number of runs."""
        ...


def run_in_turn(contestants: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, list[float]]:
    """Runs every contestant once in each round.

    Args:
      contestants: Functions by name; each function runs a program and returns its seconds.
      rounds: Number of rounds.

    Returns:
      The seconds of each contestant's rounds, in order.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
    return seconds


def measure_mean_seconds(contestant: Contestant, runs: int) -> float:
    """Measures the mean seconds of one run over a number of runs."""
    return contestant.measure_seconds(runs) / runs


def count_runs_within(contestant: Contestant, seconds: float) -> int:
    """Counts the runs that fit into a time, at least one; two runs before the measurement are a warm-up."""
    contestant.measure_seconds(2)
    return max(1, round(seconds / contestant.measure_seconds(1)))


def compile_together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Runs functions that compile programs, several at a time on a machine with many cores.

    Args:
      jobs: Functions without arguments.

    Returns:
      The results of the functions, in order.
    """
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        return list(pool.map(lambda job: job(), jobs))
