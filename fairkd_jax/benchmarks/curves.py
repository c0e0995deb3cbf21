"""Whether training in bfloat16 learns what training in float32 does: two runs on the digits, side by side."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.benchmarks.waiting import run_train
from fairkd_jax.errors import UsageError

_DTYPES = ("float32", "bfloat16")
_LOSS, _ACCURACY = "loss", "validation/accuracy"


def run(root: Path, *, overrides: Sequence[str]) -> dict[str, Any]:
    """Trains `configs/rkd_adv.py` on the digits in float32 and in bfloat16; prints both curves.

    Both students learn from one teacher.

    Args:
      root: the folder with train.py.
      overrides: further `--config.key=value` of both runs.

    Returns:
      For each dtype `loss`, a list over the reports of the training, and `accuracy`, over the validations;
      `loss_difference`, the median over the reports of the losses' difference, relative to float32's; and
      `last_accuracy_difference`, of the means of the last three.

    Raises:
      UsageError: a training failed.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="fairkd-curves-") as name:
        folder = Path(name)
        options = ["--config", "configs/rkd_adv.py", f"--config.data.directory={folder / 'data'}", *overrides]
        for dtype in _DTYPES:
            own = [f"--config.student.dtype={dtype}", f"--workdir={folder / dtype}"]
            if dtype != _DTYPES[0]:
                own.append(f"--config.teacher.checkpoint={folder / _DTYPES[0] / 'teacher'}")
            run_train([*options, *own], root)
            curves[dtype] = _read(folder / dtype)
    exact, rounded = (curves[dtype] for dtype in _DTYPES)
    # Single batches differ by chance, once rounding has led the two students apart.
    apart = float(np.median(np.abs(np.subtract(exact["loss"], rounded["loss"])) / np.abs(exact["loss"])))
    last = [float(np.mean(curve["accuracy"][-3:])) for curve in (exact, rounded)]
    for dtype, accuracy in zip(_DTYPES, last, strict=True):
        losses = curves[dtype]["loss"]
        print(f"{dtype:9}  loss {losses[0]:.3f} to {losses[-1]:.3f}, accuracy at last {accuracy:.4f}")
    print(f"the losses of a report differ by {100 * apart:.1f} % (median)", flush=True)
    return curves | {"loss_difference": apart, "last_accuracy_difference": last[1] - last[0]}


def _read(workdir: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {"loss": [x[_LOSS] for x in lines if _LOSS in x]}
    found["accuracy"] = [x[_ACCURACY] for x in lines if _ACCURACY in x]
    if not all(found.values()):
        raise UsageError("the trainings are too short to compare; raise --config.epochs")
    return found
