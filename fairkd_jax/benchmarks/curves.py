"""Learning curves in float32 and in bfloat16: two trainings on the digits, compared."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.benchmarks.waiting import run_train
from fairkd_jax.errors import UsageError
from fairkd_jax.runs.paths import RunFolder

_DTYPES = ("float32", "bfloat16")
_LOSS, _ACCURACY = "loss", "validation/accuracy"


def run(*, overrides: Sequence[str]) -> dict[str, Any]:
    """Trains `configs/rkd_adv.py` on the digits in float32 and in bfloat16, and prints both curves.

    Both students learn from the same teacher.

    Args:
      overrides: Further `--config.key=value` arguments for both trainings.

    Returns:
      For each dtype `loss`, a list over the reports of the training, and `accuracy`, a list over the
      validations. `loss_difference` is the median over reports of the losses' difference, relative to
      float32. `last_accuracy_difference` is the difference of the mean accuracies of the last three
      validations, bfloat16 minus float32.

    Raises:
      UsageError: A training failed, or is too short to compare.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="fairkd-curves-") as name:
        folder = Path(name)
        options = ["--config", "rkd_adv", f"--config.data.directory={folder / 'data'}", *overrides]
        for dtype in _DTYPES:
            own = [f"--config.student.dtype={dtype}", f"--workdir={folder / dtype}"]
            if dtype != _DTYPES[0]:
                own.append(f"--config.teacher.checkpoint={RunFolder(folder / _DTYPES[0]).teacher}")
            run_train([*options, *own])
            curves[dtype] = _read_curves(folder / dtype)
    exact, rounded = (curves[dtype] for dtype in _DTYPES)
    # Single batches differ by chance, once rounding has made the two students different.
    difference = np.abs(np.subtract(exact["loss"], rounded["loss"]))
    loss_difference = float(np.median(difference / np.abs(exact["loss"])))
    last = [float(np.mean(curve["accuracy"][-3:])) for curve in (exact, rounded)]
    for dtype, accuracy in zip(_DTYPES, last, strict=True):
        losses = curves[dtype]["loss"]
        print(f"{dtype:9}  loss {losses[0]:.3f} to {losses[-1]:.3f}, accuracy at last {accuracy:.4f}")
    print(f"the losses of a report differ by {100 * loss_difference:.1f} % (median)", flush=True)
    return curves | {"loss_difference": loss_difference, "last_accuracy_difference": last[1] - last[0]}


def _read_curves(workdir: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in RunFolder(workdir).metrics.read_text().splitlines()]
    curves = {
        "loss": [line[_LOSS] for line in lines if _LOSS in line],
        "accuracy": [line[_ACCURACY] for line in lines if _ACCURACY in line],
    }
    if not all(curves.values()):
        raise UsageError("the trainings are too short to compare; raise --config.epochs")
    return curves
