"""Several students in one program against as many lone runs, which each ask the teacher for themselves."""

import functools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fairkd_jax.benchmarks.program import Program, Setting
from fairkd_jax.benchmarks.rounds import in_turn, seconds_of_one


def run(setting: Setting, members: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Prints seconds of a step for all members, in one program and one by one, in turn, medians of rounds.

    With T the teacher's forward pass and S a student's step without it, sharing the teacher alone gives
    (T + N S) / (N (T + S)) of the time of N lone runs. T and S are measured in the same rounds.

    Args:
      setting: of a lone run's step.
      members: numbers of students.
      rounds: how many.

    Returns:
      The same figures, a dict for each number of students.
    """
    print(f"{setting.name} alone, and parts of it: compiling", flush=True)
    lone = {
        "step": Program(setting),
        "teacher": Program(replace(setting, program="teacher")),
        "student": Program(replace(setting, program="step without teacher")),
    }
    return [_compared(setting, lone, number, rounds) for number in members]


def _compared(setting: Setting, lone: dict[str, Program], number: int, rounds: int) -> dict[str, Any]:
    print(f"{number} students in one program: compiling", flush=True)
    together = Program(replace(setting, members=number))
    programs = lone | {"together": together}
    for program in programs.values():
        program.time(2)
    timers = {name: functools.partial(seconds_of_one, program, 2) for name, program in programs.items()}
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
