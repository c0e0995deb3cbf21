"""How long a training takes to its first step: with nothing compiled yet, and started again."""

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

_FIRST = "student: step 1/"
_AGAIN = 3


def run(root: Path, *, overrides: Sequence[str]) -> dict[str, Any]:
    """Starts the same training in an empty cache folder, and three more times; prints seconds.

    Args:
      root: the folder with train.py.
      overrides: `--config.key=value` of the training, which is `configs/rkd_adv.py` on digits.

    Returns:
      `first_seconds`, `again_seconds` (the median) and their `ratio`.

    Raises:
      UsageError: a training failed.
    """
    with tempfile.TemporaryDirectory(prefix="fairkd-start-") as name:
        folder = Path(name)
        environment = {
            **{key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"},
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        options = ["--config", "configs/rkd_adv.py", *overrides, f"--config.data.directory={folder / 'data'}"]
        options += ["--config.log_every_steps=1", "--config.teacher.epochs=1"]
        # The teacher is made before, with other compiled programs: only the student's start is measured.
        _seconds([*options, f"--workdir={folder / 'teacher'}"], root, environment)
        shutil.rmtree(folder / "cache")
        options.append(f"--config.teacher.checkpoint={folder / 'teacher' / 'teacher'}")
        times = [
            _seconds([*options, f"--workdir={folder / str(number)}"], root, environment)
            for number in range(1 + _AGAIN)
        ]
    first, again = times[0], statistics.median(times[1:])
    print(f"to the first step: {first:.1f} s, started again {again:.1f} s, {again / first:.2f} of the first")
    return {"first_seconds": first, "again_seconds": again, "ratio": again / first}


def _seconds(options: Sequence[str], root: Path, environment: dict[str, str]) -> float:
    """Seconds to the first step of the student; the training is stopped then."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "train.py", *options],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last = "no message"
    try:
        for line in process.stdout:
            if _FIRST in line:
                return time.perf_counter() - start
            last = line.strip() or last
        raise UsageError(f"the training failed: {last}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
