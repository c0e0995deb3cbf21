"""The seconds from a training's start to its first step, with an empty and with a full compilation cache."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError
from fairkd_jax.runs.paths import RunFolder

_FIRST_STEP = "student: step 1/"
_REPETITIONS = 3


def run(*, overrides: Sequence[str]) -> dict[str, Any]:
    """Starts the same training with an empty compilation cache, then three more times, and prints seconds.

    Args:
      overrides: Further `--config.key=value` arguments for the training, which is `configs/rkd_adv.py` on
        digits.

    Returns:
      `first_seconds`, `again_seconds` (the median of the later starts) and their `ratio`.

    Raises:
      UsageError: A training failed.
    """
    with tempfile.TemporaryDirectory(prefix="fairkd-start-") as name:
        folder = Path(name)
        environment = {
            **{key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"},
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        options = ["--config", "rkd_adv", *overrides, f"--config.data.directory={folder / 'data'}"]
        options += ["--config.log_every_steps=1", "--config.teacher.epochs=1"]
        # The teacher is trained first, with programs of its own: only the student's start is measured.
        _measure_start([*options, f"--workdir={folder / 'first'}"], environment)
        shutil.rmtree(folder / "cache")
        options.append(f"--config.teacher.checkpoint={RunFolder(folder / 'first').teacher}")
        times = [
            _measure_start([*options, f"--workdir={folder / str(number)}"], environment)
            for number in range(1 + _REPETITIONS)
        ]
    first, again = times[0], statistics.median(times[1:])
    print(f"to the first step: {first:.1f} s, started again {again:.1f} s, {again / first:.2f} of the first")
    return {"first_seconds": first, "again_seconds": again, "ratio": again / first}


def _measure_start(options: Sequence[str], environment: dict[str, str]) -> float:
    """Measures the seconds to the first step of the student, and then stops the training."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fairkd_jax", "train", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last = "no message"
    try:
        for line in process.stdout:
            if _FIRST_STEP in line:
                return time.perf_counter() - start
            last = line.strip() or last
        raise UsageError(f"the training failed: {last}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
