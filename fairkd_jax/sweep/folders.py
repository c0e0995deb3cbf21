"""How far a run is, read from its folder alone, while another process may be writing there."""

import json
import os
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError, reading
from fairkd_jax.training.config import total_steps
from fairkd_jax.training.workdir import differences, plain, read_config

_TAIL = 2**16  # bytes at the end of a file in which its last line is looked for


def is_trained(folder: Path, config: Any) -> bool:
    """Whether a run is complete, and scored on the test images.

    Args:
      folder: of the run.
      config: what its config has to be.

    Raises:
      UsageError: the folder holds a run with another config, or is damaged.
    """
    if not (folder / "config.json").exists():
        return False
    old, task = read_config(folder)
    if changed := differences(plain(old), plain(config)):
        raise UsageError(
            f"{folder} holds a run with another config: {', '.join(changed)}; choose another --workdir"
        )
    steps = total_steps(config, task["num_examples"]["train"])
    best = saved_step(folder, "best")
    return saved_step(folder, "last") >= steps and scored(folder, "test") == best


def saved_step(folder: Path, which: str) -> int:
    """The step of the checkpoint `last` or `best`; 0 before the first one."""
    try:
        names = os.listdir(folder / "checkpoints" / which)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max((int(name) for name in names if name.isdigit()), default=0)  # others are being written


def scored(folder: Path, split: str, *, probed: bool = False) -> int | None:
    """The step of the student's checkpoint that was scored on a split, and probed; None where none was."""
    path = folder / "eval" / f"{split}.json"
    if not path.exists():
        return None
    with reading(str(path), f"run `python eval.py --workdir {folder} --split {split}` again"):
        student = json.loads(path.read_text(encoding="utf-8"))["student"]
        return student["step"] if not probed or "probe" in student else None


def progress(folder: Path) -> tuple[int, int] | None:
    """The last step that was reported, of how many; None before the first report."""
    try:
        config, task = read_config(folder)
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().splitlines()
        step = int(json.loads(lines[-1])["step"])
        return step, total_steps(config, task["num_examples"]["train"])
    except (OSError, UsageError, ValueError, LookupError, TypeError):
        return None  # it is being written, or not there yet
