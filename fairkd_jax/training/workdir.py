"""A run's folder: whose it is, and whether it is done."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.objectives import OBJECTIVES
from fairkd_jax.training.config import MODEL_KEYS

# What may change between two starts of the same run. `epochs` may only grow.
# A teacher is known by the fingerprint in the task, and data by their digests, wherever they lie.
FREE_KEYS = (
    "log_every_steps",
    "checkpoint_every_steps",
    "tensorboard",
    "teacher.checkpoint",
    "data.source",
    "data.directory",
    "data.cache",
    "data.max_bad_fraction",
)
GROWING_KEYS = ("epochs",)
# What the config of a run has at least.
TASK = {"class_names", "group_names", "num_examples", "digests"}
SECTIONS = {"objectives", "student", "teacher", "optimizer", "data", "batch_size", "epochs"}


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON gives it back: tuples as lists."""
    return json.loads(json.dumps(config.to_dict()))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys, with both values, whose change makes it another run.

    Sections of objectives that neither of the two uses do not count.
    """
    used = {*old.get("objectives", ()), *new.get("objectives", ())}
    before, after = (
        _flat({key: value for key, value in config.items() if key in used or key not in OBJECTIVES})
        for config in (old, new)
    )
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        grew = key in GROWING_KEYS and was is not None and now is not None and now >= was
        if was == now or key in FREE_KEYS or grew:
            continue
        lines.append(f"{key} (was {was!r}, now {now!r})")
    return lines


def read_config(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """A run's config and task.

    Raises:
      UsageError: the folder does not hold a run.
    """
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        task = content.pop("task")
        if not (isinstance(task, dict) and task.keys() >= TASK and content.keys() >= SECTIONS):
            raise KeyError
        if not content["student"].keys() >= set(MODEL_KEYS):
            raise UsageError(
                f"{workdir} holds a run of an older version, which cannot be read; train it anew"
            )
    except UsageError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        if (workdir / "members").is_dir():
            raise UsageError(f"{workdir} holds a population; name one of {workdir / 'members'}") from None
        raise UsageError(f"{workdir} holds no run (no {path.name} in it); train into it first") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"{path} is damaged, or not the config of a run") from None
    return ConfigDict(content), task


def check_free(workdir: Path, config: ConfigDict, task: Mapping[str, Any]) -> None:
    """Checks that the folder is this run's or nobody's.

    Args:
      workdir: the run's folder.
      config: the run's config.
      task: what is known of its data and its teacher so far; a run's other entries are not compared.

    Raises:
      UsageError: it belongs to a run with another config, other data or another teacher.
    """
    if not (workdir / "config.json").exists():
        return
    old, old_task = read_config(workdir)
    known = {key: old_task.get(key) for key in task}
    changed = differences(plain(old) | {"task": known}, plain(config) | {"task": dict(task)})
    if changed:
        raise UsageError(
            f"{workdir} holds a run with another config: {', '.join(changed)}; choose another --workdir"
        )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other processes of this machine from training in the folder at the same time.

    Raises:
      UsageError: another process does already, or a file of the folder cannot be used, then or later.
    """
    if jax.process_index():  # the first process speaks for all
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        folder = os.open(workdir, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UsageError(
                f"another process is training in {workdir}; wait for it, or choose another --workdir"
            ) from None
        finally:
            os.close(folder)
            if not any(workdir.iterdir()):  # nothing came of it
                workdir.rmdir()
    except OSError as error:
        if not str(error.filename).startswith(str(workdir)):
            raise
        raise UsageError(f"cannot write to {error.filename}: {error.strerror}") from None


def claim(workdir: Path, config: ConfigDict, task: Mapping[str, Any]) -> None:
    """Makes the folder this run's; of several processes, the first one writes that down.

    Raises:
      UsageError: as of `check_free`, or the folder cannot be written to.
    """
    check_free(workdir, config, task)
    if jax.process_index():
        return
    content = plain(config) | {"task": dict(task)}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(workdir / "config.json", json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write to {workdir}: {error.strerror}") from None
