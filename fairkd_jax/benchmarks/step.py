"""The whole training step and the student's forward pass, against the machine's limits and against PyTorch.

One student of EfficientNet learns from labels, from the teacher by RKD, and against an adversary, with
AdamW, clipping and images that lie on the device as uint8: what `configs/rkd_adv.py` does, without
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

from fairkd_jax.benchmarks.floor import step_floor
from fairkd_jax.benchmarks.limits import copy_rate, product_rate
from fairkd_jax.benchmarks.peer import TorchPeer
from fairkd_jax.benchmarks.program import Program, Programs, Setting
from fairkd_jax.benchmarks.rounds import in_turn, runs_within, seconds_of_one
from fairkd_jax.errors import UsageError

_ROUND_SECONDS = 1.0  # a round has as many steps as fit


def measure(
    setting: Setting, *, rounds: int, peers: Sequence[str], python: str, program: Program
) -> dict[str, Any]:
    """Measures one setting; see `run`."""
    result: dict[str, Any] = dataclasses.asdict(setting) | {"compile_seconds": program.compile_seconds}
    result |= describe_floor(setting)
    result |= program.cost()
    with tempfile.TemporaryDirectory(prefix="fairkd-step-") as name:
        contestants: dict[str, Any] = {"fairkd_jax": program}
        try:
            steps = {"fairkd_jax": _warmed("fairkd_jax", program)}
            for mode in peers:
                key, peer = f"torch {mode}", TorchPeer(program, python, mode, Path(name))
                contestants[key], result["torch"] = peer, peer.about
                steps[key] = _warmed(key, peer)
            timers = {
                key: functools.partial(seconds_of_one, contestant, steps[key])
                for key, contestant in contestants.items()
            }
            seconds = in_turn(timers, rounds)
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
    result["share_of_arithmetic"] = result["operations"] / second / product_rate()
    result["share_of_bandwidth"] = result["bytes"] / second / copy_rate()
    result["share_of_floor"] = result["floor_seconds"] / second
    return result


def _warmed(name: str, contestant: Program | TorchPeer) -> int:
    """How many runs fit a round; says that a contestant is ready, as compiling one can take minutes."""
    start = time.perf_counter()
    steps = runs_within(contestant, _ROUND_SECONDS)
    milliseconds = 1e3 * seconds_of_one(contestant, steps)
    print(f"{name}: ready in {time.perf_counter() - start:.0f} s; about {milliseconds:.2f} ms", flush=True)
    return steps


def describe_floor(setting: Setting) -> dict[str, Any]:
    """Prints what a step cannot do without, counted before it is measured.

    Args:
      setting: of the step.

    Returns:
      `floor_bytes` by part, `floor_operations`, and `floor_seconds` of the bytes at the rate of a pass over
      memory.
    """
    floor = step_floor(setting)
    seconds = floor.total_bytes / copy_rate()
    found = ", ".join(f"{name} {count / setting.batch / 1e6:.1f}" for name, count in floor.bytes.items())
    print(
        f"{setting.name}: must move {floor.total_bytes / setting.batch / 1e6:.1f} MB an image ({found});"
        f" that takes {1e3 * seconds:.2f} ms a step at the rate of a pass over memory:"
        f" {setting.batch / seconds:.0f} images/s; its {floor.operations / 1e9:.0f} GFLOP take"
        f" {1e3 * floor.operations / product_rate():.2f} ms at the rate of a matrix product",
        flush=True,
    )
    return {"floor_bytes": floor.bytes, "floor_operations": floor.operations, "floor_seconds": seconds}


def run(
    settings: Sequence[Setting],
    *,
    rounds: int,
    peers: Sequence[str],
    python: str,
    programs: Programs | None = None,
) -> dict[str, Any]:
    """Measures and prints, contestants in turn, medians of the rounds.

    Args:
      settings: what to measure.
      rounds: how many, of a second each.
      peers: of "eager" and "compiled", the ways to run PyTorch.
      python: an interpreter that has torch; where it has timm too, the peer is timm's network.
      programs: what is compiled already, and keeps what is compiled now.

    Returns:
      The same figures: the machine's `limits`, and `results`, one for each setting.

    Raises:
      UsageError: the peer cannot run, or a model is unknown.
    """
    limits = {"operations_per_second": product_rate(), "bytes_per_second": copy_rate()}
    print(
        f"{rounds} rounds; a matrix product reaches {product_rate() / 1e9:.0f} GFLOP/s, a pass over memory"
        f" {copy_rate() / 1e9:.1f} GB/s",
        flush=True,
    )
    results = []
    for setting in settings:
        program = (programs or Programs()).get(setting)
        result = measure(setting, rounds=rounds, peers=peers, python=python, program=program)
        results.append(result)
        print(_described(setting, result), flush=True)
    return {"rounds": rounds, "limits": limits, "results": results}


def best_batch(setting: Setting, largest: int, programs: Programs) -> int:
    """The batch with the most images per second: the setting's, doubled as long as that helps and fits.

    Args:
      setting: of the smallest batch.
      largest: the batch at which the search ends.
      programs: keep those of the setting and of the last batches that were tried.

    Raises:
      UsageError: the memory does not suffice for the smallest one.
    """
    best, rate, batch = setting.batch, 0.0, setting.batch
    while batch <= largest:
        programs.keep(setting, replace(setting, batch=best))
        found = _rate(programs, replace(setting, batch=batch))
        print(f"batch {batch}: {found:.1f} images/s", flush=True)
        if found <= rate:
            break
        best, rate, batch = batch, found, 2 * batch
    if not rate:
        raise UsageError(f"not even a batch of {setting.batch} fits the memory")
    return best


def _rate(programs: Programs, setting: Setting) -> float:
    """Images per second; 0 where the memory does not suffice."""
    try:
        program = programs.get(setting)
        steps = runs_within(program, _ROUND_SECONDS)
        return setting.batch / statistics.median(seconds_of_one(program, steps) for _ in range(3))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 0.0


def _described(setting: Setting, result: Mapping[str, Any]) -> str:
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
