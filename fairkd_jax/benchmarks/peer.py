"""Control of the process torch_peer.py, which runs the same step in PyTorch."""

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.benchmarks.program import MeasuredProgram
from fairkd_jax.data.augment import IMAGENET_MEAN, IMAGENET_STD, preprocess
from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model
from fairkd_jax.models.weights.convert import to_source

_CHECKED_IMAGES = 8
_PEER = Path(__file__).with_name("torch_peer.py")


class TorchPeer:
    """A process that runs the program of a setting in PyTorch.

    Attributes:
      about: Version of PyTorch (`torch`), origin of the network (`network`) and number of `threads`.
    """

    def __init__(self, program: MeasuredProgram, python: str, mode: str, folder: Path) -> None:
        """Starts the process, which checks its models against the program's models.

        Args:
          program: Program of this project, which gives setting, batch and weights.
          python: Python interpreter that has torch.
          mode: "eager" or "compiled".
          folder: Folder for the files that the process reads.

        Raises:
          UsageError: The interpreter cannot start or has no torch, or the models disagree.
        """
        setting = program.setting
        self._program = setting.program
        arrays = folder / "arrays.npz"
        if not arrays.exists():  # another peer may have written the same file
            np.savez(arrays, **_collect_arrays(program))  # type: ignore[arg-type]
        models = {"student": program.student, "teacher": program.teacher}
        tables = {name: dataclasses.asdict(model.architecture) for name, model in models.items()}
        description = tables | {
            "arrays": str(arrays),
            "num_classes": program.num_classes,
            "names": {name: getattr(setting, name) for name in ("student", "teacher")},
            "normalise": [IMAGENET_MEAN, IMAGENET_STD],
            "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
            "dtype": setting.dtype,
            "mode": mode,
        }
        (folder / "setting.json").write_text(json.dumps(description))
        self._log = folder / f"{mode}.log"
        try:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [python, str(_PEER), str(folder / "setting.json")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    # Only the peer's own modules, and not the packages of this environment.
                    env={**os.environ, "PYTHONPATH": str(_PEER.parent)},
                )
        except OSError as error:
            raise UsageError(f"--python {python}: {error.strerror}") from error
        self.about = json.loads(self._read_line())
        self._suspend()

    def measure_seconds(self, runs: int) -> float:
        """Measures the seconds of a number of runs."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{self._program} {runs}\n")
        self._process.stdin.flush()
        seconds = float(self._read_line())
        self._suspend()
        return seconds

    def _suspend(self) -> None:
        """Suspends the process until the next request, because its idle threads would use the CPU."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _read_line(self) -> str:
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


def _collect_arrays(program: MeasuredProgram) -> dict[str, np.ndarray]:
    """Returns batch and weights, and both models' float32 outputs for the first images."""
    setting = program.setting
    arrays = {name: np.asarray(value) for name, value in program.batch.items()}
    images = preprocess(program.batch["image"][:_CHECKED_IMAGES], size=setting.size)
    # On a GPU the search for the fastest kernels would take longer than all measurements.
    options = {"xla_gpu_autotune_level": "0"}
    variables = {"student": program.copy_student_variables(), "teacher": program.teacher_variables}
    for name, values in variables.items():
        model = create_model(getattr(setting, name), num_classes=program.num_classes)
        with jax.default_matmul_precision("highest"):  # not TF32, the default of some GPUs
            outputs: Any = jax.jit(model.apply, compiler_options=options)(values, images)
        arrays[f"expected/{name}/logits"] = np.asarray(outputs.logits)
        arrays[f"expected/{name}/embedding"] = np.asarray(outputs.embedding)
        for key, array in to_source(getattr(setting, name), values, "timm").items():
            arrays[f"{name}/{key}"] = np.ascontiguousarray(array)
    return arrays
