"""Several students in one program against as many lone runs, which each ask the teacher for themselves."""

import functools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fairkd_jax.benchmarks.program import Program, Programs, Setting
from fairkd_jax.benchmarks.rounds import in_turn, runs_within, seconds_of_one

_ROUND_SECONDS = 0.3  # of each program in a round


def run(
    setting: Setting, members: Sequence[int], rounds: int, programs: Programs | None = None
) -> list[dict[str, Any]]:
    """Prints seconds of a step for all members, in one program and one by one, in turn, medians of rounds.

    With T the teacher's forward pass and S a student's step without it, sharing the teacher alone gives
    (T + N S) / (N (T + S)) of the time of N lone runs. T and S are measured in the same rounds.

    Args:
      setting: of a lone run's step.
      members: numbers of students.
      rounds: how many.
      programs: what is compiled already, and keeps what is compiled now.

    Returns:
      The same figures, a dict for each number of students.
    """
    programs = programs or Programs()
    parts = {
        "step": setting,
        "teacher": replace(setting, program="teacher"),
        "student": replace(setting, program="step without teacher"),
    }
    populations = [replace(setting, members=number) for number in members]
    print(f"{setting.name}, parts of it, and {members} students in one program: compiling", flush=True)
    programs.compile([*parts.values(), *populations])
    lone = {name: programs.get(part) for name, part in parts.items()}
    return [_compared(lone, programs.get(population), rounds) for population in populations]


def _compared(lone: dict[str, Program], together: Program, rounds: int) -> dict[str, Any]:
    number = together.setting.members
    programs = lone | {"together": together}
    runs = {name: max(2, runs_within(program, _ROUND_SECONDS)) for name, program in programs.items()}
    timers = {
        name: functools.partial(seconds_of_one, program, runs[name]) for name, program in programs.items()
    }
    seconds = in_turn(timers, rounds)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    bound = (median["teacher"] + number * median["student"]) / (
        number * (median["teacher"] + median["student"])
    )
    ratio = statistics.median(
        whole / (number * one) for whole, one in zip(seconds["together"], seconds["step"], strict=True)
    )
    alone, all_of_them = (program.cost()["peak_bytes"] for program in (lone["step"], together))
    each = (all_of_them - alone) / max(1, number - 1)
    print(
        f"{together.setting.name}: {1e3 * median['together']:.0f} ms, one by one"
        f" {1e3 * number * median['step']:.0f} ms, {ratio:.3f} of it (sharing the teacher alone gives"
        f" {bound:.3f}); {all_of_them / 2**20:.0f} MiB, {each / 2**20:.0f} for each further student",
        flush=True,
    )
    return {
        "setting": together.setting.name,
        "members": number,
        "seconds": median,
        "share_of_lone_runs": ratio,
        "bound": bound,
        "peak_bytes": all_of_them,
        "bytes_for_each_further_student": each,
    }
