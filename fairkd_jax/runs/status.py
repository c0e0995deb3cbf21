"""How far a run is, read from its folder alone, while another process may be writing there."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairkd_jax.digests import read_json
from fairkd_jax.errors import UsageError, reading
from fairkd_jax.files import parse_json
from fairkd_jax.recipe.keys import count_steps
from fairkd_jax.runs.folder import RunConfig, config_diff, read_run_config
from fairkd_jax.runs.paths import BEST, RunFolder
from fairkd_jax.runs.versions import take_open_values

_TAIL_BYTES = 2**16  # the last line of a file is looked for in its last bytes


def count_run_steps(saved: RunConfig) -> int:
    """Returns the length of a run's training in steps."""
    images = saved.data_info["num_examples"]["train"]
    return count_steps(saved.config["epochs"], images, saved.config["batch_size"])


def is_trained(folder: Path, config: Mapping[str, Any]) -> bool:
    """Returns whether a run is complete, and its best checkpoint scored on the test images.

    Args:
      folder: The run's folder.
      config: The config that the run must have, as JSON has it.

    Raises:
      UsageError: The folder holds a run with another config, or is damaged.
    """
    if not RunFolder(folder).is_run():
        return False
    saved = read_run_config(folder)
    if changed := config_diff(take_open_values(saved.config, saved.data_info, config), config):
        raise UsageError(
            f"{folder} holds a run with another config: {', '.join(changed)}; choose another --workdir"
        )
    steps = count_run_steps(saved._replace(config=dict(config)))
    if not has_checkpoint(folder) or find_saved_step(folder, "last") < steps:
        return False
    return find_scored_step(folder, "test") == find_saved_step(folder, "best")


def find_saved_step(folder: Path, which: str) -> int:
    """Finds the step of the checkpoint "last" or "best" from the folder names; 0 without a checkpoint."""
    try:
        names = os.listdir(RunFolder(folder).checkpoints / which)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    # Names with other characters are checkpoints that are being written.
    return max((int(name) for name in names if name.isdigit()), default=0)


def make_eval_command(folder: Path, split: str, checkpoint: str = BEST) -> str:
    """Returns the command that scores a checkpoint of a run on a split."""
    command = f"fairkd-eval {folder} --split {split}"
    return command if checkpoint == BEST else f"{command} --checkpoint {checkpoint}"


def read_evaluation(folder: Path, split: str, checkpoint: str = BEST) -> dict[str, Any]:
    """Reads the scores of a checkpoint on a split.

    Args:
      folder: The run's folder.
      split: "train", "val" or "test".
      checkpoint: The scored checkpoint: "best", "last" or the number of a step.

    Raises:
      UsageError: The file is absent or damaged, or holds the scores of another checkpoint: an earlier version
        wrote those of every checkpoint into one file.
    """
    path = RunFolder(folder).evaluation(split, checkpoint)
    command = make_eval_command(folder, split, checkpoint)
    with reading(str(path), f"run `{command}` again"):
        content = read_json(path)
        if not isinstance(content.get("student"), dict):
            raise ValueError("no student in it")
        if (found := str(content.get("checkpoint", checkpoint))) != checkpoint:
            raise UsageError(f"{path} holds the scores of the checkpoint {found}; run `{command}` again")
        return content


def has_checkpoint(folder: Path) -> bool:
    """Returns whether a run has a last checkpoint, which may be of step 0."""
    try:
        return any(name.isdigit() for name in os.listdir(RunFolder(folder).checkpoints / "last"))
    except (FileNotFoundError, NotADirectoryError):
        return False


def find_scored_step(folder: Path, split: str, *, probed: bool = False) -> int | None:
    """Returns the step of the student's best checkpoint that was scored on a split.

    Args:
      folder: The run's folder.
      split: "train", "val" or "test".
      probed: Whether the checkpoint must have been probed, too.

    Returns:
      The step; None where no checkpoint was scored.
    """
    path = RunFolder(folder).evaluation(split)
    if not path.exists():
        return None
    with reading(str(path), f"run `{make_eval_command(folder, split)}` again"):
        content = read_json(path)
        student = content["student"]
        if content.get("checkpoint", BEST) != BEST:  # an earlier version has one file for all checkpoints
            return None
        return student["step"] if not probed or "probe" in student else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the logged numbers of a run, a dict for each logged step.

    A last line that a kill has cut short is left out; the run writes it again when it goes on.

    Args:
      path: The run's metrics.jsonl.

    Raises:
      UsageError: The file is damaged.
      OSError: The file cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    complete, _, rest = text.rpartition("\n")
    with reading(str(path), "train the run again, or remove the file"):
        lines = [parse_json(line) for line in complete.splitlines()]
        with contextlib.suppress(ValueError):
            lines += [parse_json(rest)] if rest else []
        if not all(isinstance(line, dict) and isinstance(line["step"], int | float) for line in lines):
            raise ValueError("a line without a step")
        return lines


def find_progress(folder: Path) -> tuple[int, int] | None:
    """Returns the last reported step and the number of all steps; None before the first report."""
    try:
        saved = read_run_config(folder)
        with RunFolder(folder).metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
        return int(parse_json(lines[-1].decode("utf-8"))["step"]), count_run_steps(saved)
    except (OSError, UsageError, ValueError, LookupError, TypeError, OverflowError):
        return None  # the file is being written, or does not exist yet
