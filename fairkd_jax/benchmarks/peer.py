"""Our hold on the process that runs the same step in PyTorch: torch_peer.py."""

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.benchmarks.program import Program
from fairkd_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD, preprocess
from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model
from fairkd_jax.models.weights.convert import to_source

_CHECKED_IMAGES = 8
_PEER = Path(__file__).with_name("torch_peer.py")


class TorchPeer:
    """The same in PyTorch, in a process of its own."""

    def __init__(self, program: Program, python: str, mode: str, folder: Path) -> None:
        """Starts it and lets it check its models against ours.

        Args:
          program: our own, whose setting and weights it takes.
          python: an interpreter that has torch.
          mode: "eager" or "compiled".
          folder: for the arrays that are handed over.

        Raises:
          UsageError: that Python has no torch, or the models do not agree.
        """
        setting = program.setting
        self._program = setting.program
        arrays = folder / "arrays.npz"
        if not arrays.exists():  # else an earlier peer was handed the same
            np.savez(arrays, **_arrays(program))  # type: ignore[arg-type]
        models = {"student": program.student, "teacher": program.teacher}
        tables = {name: dataclasses.asdict(model.architecture) for name, model in models.items()}
        described = tables | {
            "arrays": str(arrays),
            "num_classes": program.num_classes,
            "names": {name: getattr(setting, name) for name in ("student", "teacher")},
            "normalise": [IMAGENET_MEAN, IMAGENET_STD],
            "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
            "dtype": setting.dtype,
            "mode": mode,
        }
        (folder / "setting.json").write_text(json.dumps(described))
        self._log = folder / f"{mode}.log"
        try:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [python, str(_PEER), str(folder / "setting.json")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
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
            self._process.communicate()
            *_, last = self._log.read_text(errors="replace").strip().splitlines() or ["no message"]
            raise UsageError(
                f"the peer in PyTorch has stopped ({last}); --python must name an interpreter with torch"
                " (python3 -m venv ENV; ENV/bin/pip install torch numpy)"
            )
        return line


def _arrays(program: Program) -> dict[str, np.ndarray]:
    """Batch and weights, and what both models make of the first images in float32."""
    setting = program.setting
    arrays = {name: np.asarray(value) for name, value in program.batch.items()}
    images = preprocess(program.batch["image"][:_CHECKED_IMAGES], size=setting.size)
    # Choosing the fastest kernels for this one call would take a GPU longer than all that is measured.
    options = {"xla_gpu_autotune_level": "0"}
    variables = {"student": program.student_variables(), "teacher": program.teacher_variables}
    for name, values in variables.items():
        model = create_model(getattr(setting, name), num_classes=program.num_classes)
        with jax.default_matmul_precision("highest"):  # and not TF32, the default of some GPUs
            outputs: Any = jax.jit(model.apply, compiler_options=options)(values, images)
        arrays[f"expected/{name}/logits"] = np.asarray(outputs.logits)
        arrays[f"expected/{name}/embedding"] = np.asarray(outputs.embedding)
        for key, array in to_source(getattr(setting, name), values, "timm").items():
            arrays[f"{name}/{key}"] = np.ascontiguousarray(array)
    return arrays
