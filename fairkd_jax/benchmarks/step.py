"""The whole training step and the student's forward pass, against the machine's limits and against PyTorch.

One EfficientNet student learns from labels, from the teacher by RKD, and against an adversary, with AdamW and
clipping. The images are on the device, as uint8. This is the step of `configs/rkd_adv.py`, without
augmentation.
"""

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.benchmarks.floor import count_floor
from fairkd_jax.benchmarks.limits import measure_copy_rate, measure_product_rate
from fairkd_jax.benchmarks.peer import TorchPeer
from fairkd_jax.benchmarks.program import MeasuredProgram, ProgramCache
from fairkd_jax.benchmarks.rounds import count_runs_within, measure_mean_seconds, run_in_turn
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.errors import UsageError

_ROUND_SECONDS = 1.0  # time of each contestant in a round


def measure_setting(
    setting: BenchmarkSetting, *, rounds: int, peers: Sequence[str], python: str, program: MeasuredProgram
) -> dict[str, Any]:
    """Measures one setting.

    Args:
      setting: Setting to measure.
      rounds: See `run`.
      peers: See `run`.
      python: See `run`.
      program: Compiled program of the setting.

    Returns:
      The figures of the setting.

    Raises:
      UsageError: A peer cannot run.
    """
    result: dict[str, Any] = dataclasses.asdict(setting) | {"compile_seconds": program.compile_seconds}
    result |= describe_floor(setting)
    result |= program.get_cost()
    with tempfile.TemporaryDirectory(prefix="fairkd-step-") as name:
        contestants: dict[str, Any] = {"fairkd_jax": program}
        try:
            runs = {"fairkd_jax": _warm_up("fairkd_jax", program)}
            for mode in peers:
                key, peer = f"torch {mode}", TorchPeer(program, python, mode, Path(name))
                contestants[key], result["torch"] = peer, peer.about
                runs[key] = _warm_up(key, peer)
            timers = {
                key: functools.partial(measure_mean_seconds, contestant, runs[key])
                for key, contestant in contestants.items()
            }
            seconds = run_in_turn(timers, rounds)
        finally:
            for contestant in contestants.values():
                if isinstance(contestant, TorchPeer):
                    contestant.close()
    own = seconds["fairkd_jax"]
    result["seconds"] = {key: statistics.median(values) for key, values in seconds.items()}
    result["images_per_second"] = {key: setting.batch / value for key, value in result["seconds"].items()}
    result["times_as_fast_as"] = {
        key: statistics.median(b / a for a, b in zip(own, values, strict=True))
        for key, values in seconds.items()
        if key != "fairkd_jax"
    }
    second = result["seconds"]["fairkd_jax"]
    result["share_of_arithmetic"] = result["operations"] / second / measure_product_rate()
    result["share_of_bandwidth"] = result["bytes"] / second / measure_copy_rate()
    result["share_of_floor"] = result["floor_seconds"] / second
    return result


def _warm_up(name: str, contestant: MeasuredProgram | TorchPeer) -> int:
    """Counts the runs of a round and prints that the contestant is ready, which can take minutes."""
    start = time.perf_counter()
    runs = count_runs_within(contestant, _ROUND_SECONDS)
    milliseconds = 1e3 * measure_mean_seconds(contestant, runs)
    print(f"{name}: ready in {time.perf_counter() - start:.0f} s; about {milliseconds:.2f} ms", flush=True)
    return runs


def describe_floor(setting: BenchmarkSetting) -> dict[str, Any]:
    """Prints the lower bounds of a step, which are counted before any measurement of the step.

    Args:
      setting: Setting of the step.

    Returns:
      `floor_bytes` by part, `floor_operations`, and `floor_seconds`, the seconds to move the bytes at the
      rate of a pass over memory.

    Raises:
      UsageError: A model is unknown.
    """
    floor = count_floor(setting)
    seconds = floor.total_bytes / measure_copy_rate()
    parts = ", ".join(f"{name} {count / setting.batch / 1e6:.1f}" for name, count in floor.bytes.items())
    print(
        f"{setting.name}: must move {floor.total_bytes / setting.batch / 1e6:.1f} MB an image ({parts});"
        f" that takes {1e3 * seconds:.2f} ms a step at the rate of a pass over memory:"
        f" {setting.batch / seconds:.0f} images/s; its {floor.operations / 1e9:.0f} GFLOP take"
        f" {1e3 * floor.operations / measure_product_rate():.2f} ms at the rate of a matrix product",
        flush=True,
    )
    return {"floor_bytes": floor.bytes, "floor_operations": floor.operations, "floor_seconds": seconds}


def run(
    settings: Sequence[BenchmarkSetting],
    *,
    rounds: int,
    peers: Sequence[str],
    python: str,
    programs: ProgramCache | None = None,
) -> dict[str, Any]:
    """Measures the settings and prints medians over rounds, in which all contestants run in turn.

    Args:
      settings: Settings to measure.
      rounds: Number of rounds; each contestant runs for about a second in each round.
      peers: Ways to run PyTorch, from "eager" and "compiled".
      python: Python interpreter that has torch; if it has timm too, the peer is timm's network.
      programs: Cache of compiled programs, which also keeps the programs of this call.

    Returns:
      `rounds`; `limits` of the machine; `results`, a dict for each setting.

    Raises:
      UsageError: A peer cannot run, or a model is unknown.
    """
    limits = {"operations_per_second": measure_product_rate(), "bytes_per_second": measure_copy_rate()}
    print(
        f"{rounds} rounds; a matrix product reaches {measure_product_rate() / 1e9:.0f} GFLOP/s,"
        f" a pass over memory {measure_copy_rate() / 1e9:.1f} GB/s",
        flush=True,
    )
    results = []
    for setting in settings:
        program = (programs or ProgramCache()).get_program(setting)
        result = measure_setting(setting, rounds=rounds, peers=peers, python=python, program=program)
        results.append(result)
        print(_format_result(setting, result), flush=True)
    return {"rounds": rounds, "limits": limits, "results": results}


def find_best_batch(setting: BenchmarkSetting, largest: int, programs: ProgramCache) -> int:
    """Finds the batch with the most images per second.

    The search doubles the batch as long as the rate grows and the memory suffices.

    Args:
      setting: Setting with the smallest batch.
      largest: Batch at which the search ends.
      programs: Cache of compiled programs; it keeps only the setting's program and the last programs tried.

    Returns:
      The batch.

    Raises:
      UsageError: Not even the smallest batch fits the memory.
    """
    best, rate, batch = setting.batch, 0.0, setting.batch
    while batch <= largest:
        programs.keep_only(setting, replace(setting, batch=best))
        new_rate = _measure_rate(programs, replace(setting, batch=batch))
        print(f"batch {batch}: {new_rate:.1f} images/s", flush=True)
        if new_rate <= rate:
            break
        best, rate, batch = batch, new_rate, 2 * batch
    if not rate:
        raise UsageError(f"not even a batch of {setting.batch} fits the memory; use smaller models")
    return best


def _measure_rate(programs: ProgramCache, setting: BenchmarkSetting) -> float:
    """Measures images per second; returns 0 if the memory does not suffice."""
    try:
        program = programs.get_program(setting)
        runs = count_runs_within(program, _ROUND_SECONDS)
        return setting.batch / statistics.median(measure_mean_seconds(program, runs) for _ in range(3))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 0.0


def _format_result(setting: BenchmarkSetting, result: Mapping[str, Any]) -> str:
    arithmetic, bandwidth = (100 * result[f"share_of_{kind}"] for kind in ("arithmetic", "bandwidth"))
    memory = result["peak_bytes"] / 2**20
    lines = [
        setting.name,
        f"  compiled in {result['compile_seconds']:.1f} s; at most {memory:.0f} MiB of memory;"
        f" by XLA's count {result['operations'] / 1e9:.1f} GFLOP ({arithmetic:.0f} % of the product's rate)",
        f"  and {result['bytes'] / 1e9:.2f} GB ({bandwidth:.0f} % of the pass's rate);"
        f" {100 * result['share_of_floor']:.0f} % of the limit by the bytes that must move",
    ]
    if "torch" in result:
        lines.append(f"  the peer: {result['torch']['network']}, PyTorch {result['torch']['torch']}")
    for key, rate in result["images_per_second"].items():
        ratio = result["times_as_fast_as"].get(key)
        compared = f"   ours is {ratio:.2f} times as fast" if ratio else ""
        lines.append(f"  {key:14}  {rate:9.1f} images/s  {1e3 * result['seconds'][key]:9.2f} ms{compared}")
    return "\n".join(lines)
