"""The whole training step and the student's forward pass, against the machine's limits and against PyTorch.

One student of EfficientNet learns from labels, from the teacher by RKD, and against an adversary, with
AdamW, clipping and images that lie on the device as uint8: what `configs/rkd_adv.py` does, without
augmentation.
"""

import dataclasses
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairkd_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD, preprocess
from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model
from fairkd_jax.models.weights.convert import to_source
from fairkd_jax.objectives import Spec, create_objective
from fairkd_jax.training.optimizer import make_optimizer
from fairkd_jax.training.step import init_state, make_train_step

CLASSES = 16
WEIGHTS = {"cross_entropy": 1.0, "rkd_distance": 25.0, "rkd_angle": 50.0, "adversary": 1.0}
_PEER = Path(__file__).with_name("torch_peer.py")
_ROUND_SECONDS = 1.0  # a round has as many steps as fit


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
      program: "step" or "forward".
      student: the name of a model.
      teacher: the name of a model.
      size: pixels of the side.
      batch: images.
      dtype: of the activations, "float32" or "bfloat16".
    """

    program: str
    student: str
    teacher: str
    size: int
    batch: int
    dtype: str

    @property
    def name(self) -> str:
        """The line's name in the table."""
        models = self.student if self.program == "forward" else f"{self.teacher} to {self.student}"
        return f"{self.program} {models} {self.size} px, batch {self.batch}, {self.dtype}"


class Program:
    """Our own compiled program, its arguments on the device."""

    def __init__(self, setting: Setting) -> None:
        """Builds and compiles it; see `Setting`."""
        make = functools.partial(create_model, num_classes=CLASSES, dtype=jnp.dtype(setting.dtype))
        self.student, self.teacher = make(setting.student), make(setting.teacher)
        self.batch = _batch(setting)
        self.teacher_variables = _variables(self.teacher, 1, setting.size)
        size = functools.partial(preprocess, size=setting.size)
        objectives = {name: create_objective(name) for name in WEIGHTS}
        schedule = optax.constant_schedule(1e-4)
        optimizer = make_optimizer("adamw", schedule, weight_decay=1e-4, clip_norm=1.0)
        common: dict[str, Any] = {
            "student": self.student,
            "objectives": objectives,
            "optimizers": {"student": optimizer},
        }
        widths = (self.student.architecture.head, self.teacher.architecture.head)
        counts = np.full((2, CLASSES), 10)
        self._state = jax.jit(
            functools.partial(
                init_state, **common, spec=Spec(CLASSES, 2, *widths, counts), image_size=setting.size, seed=0
            )
        )()
        start = time.perf_counter()
        if setting.program == "step":
            step = make_train_step(
                **common,
                teacher=self.teacher,
                augment=lambda key, images: size(images),
                data_seed=0,
                total_steps=1000,
                steps_per_epoch=100.0,
            )
            weights = {name: jnp.float32(weight) for name, weight in WEIGHTS.items()}
            jitted = jax.jit(step, donate_argnums=0)
            self.compiled = jitted.lower(self._state, self.teacher_variables, self.batch, weights).compile()

            def run() -> Any:
                self._state, metrics = self.compiled(self._state, self.teacher_variables, self.batch, weights)
                return metrics
        else:
            variables, images = self.student_variables(), self.batch["image"]
            forward = jax.jit(lambda variables, images: self.student.apply(variables, size(images)))
            self.compiled = forward.lower(variables, images).compile()

            def run() -> Any:
                return self.compiled(variables, images)

        self.compile_seconds = time.perf_counter() - start
        self._run = run

    def student_variables(self) -> dict[str, Any]:
        """A copy of the student as it is now."""
        return jax.tree.map(jnp.copy, self._state.student_variables())

    def time(self, steps: int) -> float:
        """Seconds of so many runs."""
        start = time.perf_counter()
        for _ in range(steps):
            result = self._run()
        jax.block_until_ready(result)
        return time.perf_counter() - start

    def cost(self) -> dict[str, float]:
        """What XLA says of one run: floating-point operations, bytes moved, bytes of memory at the peak."""
        analysis = self.compiled.cost_analysis() or {}
        memory = self.compiled.memory_analysis()
        peak = 0
        if memory is not None:
            peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
            peak -= memory.alias_size_in_bytes
        return {
            "operations": analysis.get("flops", 0.0),
            "bytes": analysis.get("bytes accessed", 0.0),
            "peak_bytes": float(peak),
        }


def _variables(model: Any, seed: int, size: int) -> Any:
    """Initial variables with statistics that are not all 0 and 1, so that a mistake in BatchNorm shows."""
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, size, size, 3)))
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(
        lambda x: jnp.asarray(x + 0.1 * rng.uniform(size=x.shape), x.dtype), variables["batch_stats"]
    )
    return {"params": variables["params"], "batch_stats": stats}


def _batch(setting: Setting) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shape = (setting.batch, setting.size, setting.size, 3)
    batch = {
        "image": rng.integers(0, 256, shape, dtype=np.uint8),
        "label": rng.integers(0, CLASSES, setting.batch).astype(np.int32),
        "group": rng.integers(0, 2, setting.batch).astype(np.int32),
        "index": np.arange(setting.batch, dtype=np.int32),
        "mask": np.ones(setting.batch, np.float32),
    }
    return jax.device_put(batch)


class TorchPeer:
    """The same in PyTorch, in a process of its own."""

    def __init__(self, setting: Setting, program: Program, python: str, mode: str, folder: Path) -> None:
        """Starts it and lets it check its models against ours.

        Args:
          setting: what is measured.
          program: our own, whose weights it takes.
          python: an interpreter that has torch.
          mode: "eager" or "compiled".
          folder: for the arrays that are handed over.

        Raises:
          UsageError: that Python has no torch, or the models do not agree.
        """
        self._python, self._program = python, setting.program
        arrays = {name: np.asarray(value) for name, value in program.batch.items()}
        variables = {"student": program.student_variables(), "teacher": program.teacher_variables}
        images = preprocess(program.batch["image"], size=setting.size)
        tables = {}
        for name, model in (("student", program.student), ("teacher", program.teacher)):
            tables[name] = dataclasses.asdict(model.architecture)
            exact = create_model(getattr(setting, name), num_classes=CLASSES)
            outputs: Any = jax.jit(exact.apply)(variables[name], images)
            arrays[f"expected/{name}/logits"] = np.asarray(outputs.logits)
            arrays[f"expected/{name}/embedding"] = np.asarray(outputs.embedding)
            for key, array in to_source(getattr(setting, name), variables[name], "timm").items():
                arrays[f"{name}/{key}"] = np.ascontiguousarray(array)
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
        described = tables | {
            "arrays": str(folder / "arrays.npz"),
            "num_classes": CLASSES,
            "normalise": [IMAGENET_MEAN, IMAGENET_STD],
            "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
            "dtype": setting.dtype,
            "mode": mode,
        }
        (folder / "setting.json").write_text(json.dumps(described))
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                [python, str(_PEER), str(folder / "setting.json")],
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env={**os.environ, "PYTHONPATH": ""},
            )
        except OSError as error:
            raise UsageError(f"--python {python}: {error.strerror}") from error
        self.about = json.loads(self._line())
        self._sleep()

    def time(self, steps: int) -> float:
        """Seconds of so many runs."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{self._program} {steps}\n")
        self._process.stdin.flush()
        seconds = float(self._line())
        self._sleep()
        return seconds

    def _sleep(self) -> None:
        """Stops it until it is asked again: its threads would wait for work by turning round and round."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            *_, last = said.strip().splitlines() or ["no message"]
            raise UsageError(
                f"the peer in PyTorch has stopped ({last}); --python must name an interpreter with torch"
                " (python3 -m venv ENV; ENV/bin/pip install torch numpy)"
            )
        return line


def machine_limits() -> dict[str, float]:
    """What this machine does at best, measured: a product's operations per second, a copy's bytes."""
    side = 4096 if jax.default_backend() != "cpu" else 1024
    dtype = jnp.bfloat16 if jax.default_backend() != "cpu" else jnp.float32
    matrix = jnp.ones((side, side), dtype)
    large = jnp.ones(2**28 if jax.default_backend() != "cpu" else 2**24, jnp.float32)

    def best(function: Callable[[jax.Array], jax.Array], argument: jax.Array) -> float:
        compiled = jax.jit(function)
        times = []
        for _ in range(8):
            start = time.perf_counter()
            jax.block_until_ready(compiled(argument))
            times.append(time.perf_counter() - start)
        return min(times)

    return {
        "operations_per_second": 2.0 * side**3 / best(lambda x: x @ x, matrix),
        "bytes_per_second": 2.0 * large.nbytes / best(lambda x: x + 1.0, large),
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
                peer = TorchPeer(setting, program, python, mode, Path(name))
                contestants[f"torch {mode}"] = peer
                result["torch"] = peer.about
            steps = {key: _steps(contestant) for key, contestant in contestants.items()}
            seconds: dict[str, list[float]] = {key: [] for key in contestants}
            for _ in range(rounds):
                for key, contestant in contestants.items():
                    seconds[key].append(contestant.time(steps[key]) / steps[key])
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


def run(
    settings: Sequence[Setting], *, rounds: int, peers: Sequence[str], python: str, output: Path | None
) -> None:
    """Measures and prints, contestants in turn, medians of the rounds.

    Args:
      settings: what to measure.
      rounds: how many, of a second each.
      peers: of "eager" and "compiled", the ways to run PyTorch.
      python: an interpreter that has torch.
      output: a JSON file to write.

    Raises:
      UsageError: the peer cannot run, or a model is unknown.
    """
    limits = machine_limits()
    rates = (limits["operations_per_second"] / 1e9, limits["bytes_per_second"] / 1e9)
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {rounds} rounds; a matrix product reaches"
        f" {rates[0]:.0f} GFLOP/s, a copy {rates[1]:.1f} GB/s",
        flush=True,
    )
    results = []
    for setting in settings:
        result = measure(setting, rounds=rounds, peers=peers, python=python, limits=limits)
        results.append(result)
        print(_described(setting, result), flush=True)
    if output is not None:
        document = {
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "jax": jax.__version__,
            "python": sys.version.split()[0],
            "cores": os.cpu_count(),
            "rounds": rounds,
            "limits": limits,
            "results": results,
        }
        temporary = output.with_name(f".{output.name}.tmp")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(output)


def _described(setting: Setting, result: Mapping[str, Any]) -> str:
    arithmetic, bandwidth = (100 * result[f"share_of_{kind}"] for kind in ("arithmetic", "bandwidth"))
    memory = result["peak_bytes"] / 2**20
    lines = [
        setting.name,
        f"  compiled in {result['compile_seconds']:.1f} s; at most {memory:.0f} MiB of memory;"
        f" by XLA's count {result['operations'] / 1e9:.1f} GFLOP ({arithmetic:.0f} % of the product's rate)",
        f"  and {result['bytes'] / 1e9:.2f} GB ({bandwidth:.0f} % of the copy's rate)",
    ]
    for key, rate in result["images_per_second"].items():
        ratio = result["times_as_fast_as"].get(key)
        compared = f"   ours is {ratio:.2f} times as fast" if ratio else ""
        lines.append(f"  {key:14}  {rate:9.1f} images/s  {1e3 * result['seconds'][key]:9.2f} ms{compared}")
    return "\n".join(lines)
