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
import jax.numpy as jnp

from fairkd_jax.benchmarks.peer import TorchPeer
from fairkd_jax.benchmarks.program import Program, Setting
from fairkd_jax.benchmarks.rounds import in_turn, seconds_of_one
from fairkd_jax.errors import UsageError

_ROUND_SECONDS = 1.0  # a round has as many steps as fit


def machine_limits() -> dict[str, float]:
    """What this machine does at best, measured: operations of a product, bytes of a pass."""
    on_cpu = jax.default_backend() == "cpu"
    side, dtype = (1024, jnp.float32) if on_cpu else (4096, jnp.bfloat16)
    matrix = jnp.ones((side, side), dtype)
    large = jnp.ones(2**26 if on_cpu else 2**28, jnp.float32)
    product = jax.jit(lambda x: x @ x)
    # In place: memory that is new to the process is slower by far.
    copy = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    products, copies = [], []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(product(matrix))
        products.append(time.perf_counter() - start)
        start = time.perf_counter()
        large = jax.block_until_ready(copy(large))
        copies.append(time.perf_counter() - start)
    return {
        "operations_per_second": 2.0 * side**3 / min(products),
        "bytes_per_second": 2.0 * large.nbytes / min(copies),
    }


def measure(
    setting: Setting, *, rounds: int, peers: Sequence[str], python: str, limits: Mapping[str, float]
) -> dict[str, Any]:
    """Measures one setting; see `run`."""
    program = Program(setting)
    result: dict[str, Any] = dataclasses.asdict(setting) | {"compile_seconds": program.compile_seconds}
    result |= program.cost()
    with tempfile.TemporaryDirectory(prefix="fairkd-step-") as name:
        contestants: dict[str, Any] = {"fairkd_jax": program}
        try:
            for mode in peers:
                peer = TorchPeer(program, python, mode, Path(name))
                contestants[f"torch {mode}"] = peer
                result["torch"] = peer.about
            steps = {key: _steps(contestant) for key, contestant in contestants.items()}
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
    result["share_of_arithmetic"] = result["operations"] / second / limits["operations_per_second"]
    result["share_of_bandwidth"] = result["bytes"] / second / limits["bytes_per_second"]
    return result


def _steps(contestant: Any) -> int:
    """How many steps make a round, after two that do not count."""
    contestant.time(2)
    return max(1, round(_ROUND_SECONDS / contestant.time(1)))


def run(settings: Sequence[Setting], *, rounds: int, peers: Sequence[str], python: str) -> dict[str, Any]:
    """Measures and prints, contestants in turn, medians of the rounds.

    Args:
      settings: what to measure.
      rounds: how many, of a second each.
      peers: of "eager" and "compiled", the ways to run PyTorch.
      python: an interpreter that has torch.

    Returns:
      The same figures: the machine's `limits`, and `results`, one for each setting.

    Raises:
      UsageError: the peer cannot run, or a model is unknown.
    """
    limits = machine_limits()
    rates = (limits["operations_per_second"] / 1e9, limits["bytes_per_second"] / 1e9)
    print(
        f"{rounds} rounds; a matrix product reaches {rates[0]:.0f} GFLOP/s, a pass over memory"
        f" {rates[1]:.1f} GB/s",
        flush=True,
    )
    results = []
    for setting in settings:
        result = measure(setting, rounds=rounds, peers=peers, python=python, limits=limits)
        results.append(result)
        print(_described(setting, result), flush=True)
    return {"rounds": rounds, "limits": limits, "results": results}


def best_batch(setting: Setting, largest: int) -> int:
    """The batch with the most images per second: the setting's, doubled as long as that helps and fits."""
    best, rate, batch = setting.batch, 0.0, setting.batch
    while batch <= largest:
        found = _rate(replace(setting, batch=batch))
        print(f"batch {batch}: {found:.1f} images/s", flush=True)
        if found <= rate:
            break
        best, rate, batch = batch, found, 2 * batch
    if not rate:
        raise UsageError(f"not even a batch of {setting.batch} fits the memory")
    return best


def _rate(setting: Setting) -> float:
    """Images per second; 0 where the memory does not suffice."""
    try:
        program = Program(setting)
        steps = _steps(program)
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
        f"  and {result['bytes'] / 1e9:.2f} GB ({bandwidth:.0f} % of the pass's rate)",
    ]
    for key, rate in result["images_per_second"].items():
        ratio = result["times_as_fast_as"].get(key)
        compared = f"   ours is {ratio:.2f} times as fast" if ratio else ""
        lines.append(f"  {key:14}  {rate:9.1f} images/s  {1e3 * result['seconds'][key]:9.2f} ms{compared}")
    return "\n".join(lines)
