"""Measurement of several students in one program, against as many single runs.

Each single run has its own forward pass of the teacher.
"""

import functools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fairkd_jax.benchmarks.program import MeasuredProgram, ProgramCache
from fairkd_jax.benchmarks.rounds import count_runs_within, measure_mean_seconds, run_in_turn
from fairkd_jax.benchmarks.setting import BenchmarkSetting

_ROUND_SECONDS = 0.3  # time of each program in a round


def run(
    setting: BenchmarkSetting, members: Sequence[int], rounds: int, programs: ProgramCache | None = None
) -> list[dict[str, Any]]:
    """Prints the seconds of a step for all students, in one program and one by one, as medians over rounds.

    Let T be the time of the teacher's forward pass, and S the time of a student's step without the teacher.
    If only the teacher is shared, N students take (T + N S) / (N (T + S)) of the time of N single runs. T and
    S are measured in the same rounds as the programs.

    Args:
      setting: Setting of a single run's step.
      members: Numbers of students to measure.
      rounds: Number of rounds.
      programs: Cache of compiled programs, which also keeps the programs of this call.

    Returns:
      A dict for each number of students: `setting` (name), `members`, `seconds` by program,
      `share_of_lone_runs`, `bound` (the share given above), `peak_bytes` and
      `bytes_for_each_further_student`.

    Raises:
      UsageError: A model is unknown.
    """
    programs = programs or ProgramCache()
    parts = {
        "step": setting,
        "teacher": replace(setting, program="teacher"),
        "student": replace(setting, program="step without teacher"),
    }
    populations = [replace(setting, members=number) for number in members]
    print(f"{setting.name}, parts of it, and {members} students in one program: compiling", flush=True)
    programs.compile_missing([*parts.values(), *populations])
    single = {name: programs.get_program(part) for name, part in parts.items()}
    return [_compare_population(single, programs.get_program(each), rounds) for each in populations]


def _compare_population(
    single: dict[str, MeasuredProgram], together: MeasuredProgram, rounds: int
) -> dict[str, Any]:
    number = together.setting.members
    programs = single | {"together": together}
    runs = {name: max(2, count_runs_within(program, _ROUND_SECONDS)) for name, program in programs.items()}
    timers = {
        name: functools.partial(measure_mean_seconds, program, runs[name])
        for name, program in programs.items()
    }
    seconds = run_in_turn(timers, rounds)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    bound = (median["teacher"] + number * median["student"]) / (
        number * (median["teacher"] + median["student"])
    )
    ratio = statistics.median(
        whole / (number * one) for whole, one in zip(seconds["together"], seconds["step"], strict=True)
    )
    single_peak, peak = (program.get_cost()["peak_bytes"] for program in (single["step"], together))
    further = (peak - single_peak) / max(1, number - 1)
    print(
        f"{together.setting.name}: {1e3 * median['together']:.0f} ms, one by one"
        f" {1e3 * number * median['step']:.0f} ms, {ratio:.3f} of it (sharing the teacher alone gives"
        f" {bound:.3f}); {peak / 2**20:.0f} MiB, {further / 2**20:.0f} for each further student",
        flush=True,
    )
    return {
        "setting": together.setting.name,
        "members": number,
        "seconds": median,
        "share_of_lone_runs": ratio,
        "bound": bound,
        "peak_bytes": peak,
        "bytes_for_each_further_student": further,
    }
