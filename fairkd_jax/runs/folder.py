"""The files of a run's folder, and the identity of the run in it.

Nothing here imports JAX, so that a program that only reads tables starts at once.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fairkd_jax.digests import read_json, write_json
from fairkd_jax.errors import UsageError, writing
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.recipe.keys import MODEL_KEYS
from fairkd_jax.runs.config_form import check_form
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.versions import VERSION, take_open_values, upgrade

# Keys that may change between two starts of the same run. `epochs` may only grow.
# The fingerprint in the data's description identifies a teacher, and digests identify the data, wherever they
# are.
FREE_KEYS = (
    "log_every_steps",
    "checkpoint_every_steps",
    "checkpoints.keep",
    "checkpoints.keep_every_epochs",
    "tensorboard",
    "writer",
    "optimizer.restart",
    "teacher.checkpoint",
    "data.source",
    "data.directory",
    "data.cache",
    "data.max_bad_fraction",
)
GROWING_KEYS = ("epochs",)
SWEEP_TEACHERS = "teachers"  # folder of the shared teachers below the folder of a sweep
# Keys that every run's description of its data, and every run's config, has at least.
_DATA_INFO_KEYS = {"class_names", "group_names", "num_examples", "digests"}
_SECTIONS = {"objectives", "student", "teacher", "optimizer", "data", "batch_size", "epochs"}
CONTENTS = "contents"  # key in the description of the data: digests of the image files of each split
# Key in the description of the data: steps at which the schedule of a run that was made longer begins anew.
RESTARTS = "restarts"
# JSON keys of `config.json` beside the config.
_DATA_INFO, _VERSION, _METHODS = "task", "version", "methods"


class RunConfig(NamedTuple):
    """The content of `config.json`.

    Attributes:
      config: The config, as JSON has it: lists for tuples.
      data_info: The description of the data: names, number of images and digest of each split, and the
        teacher.
      methods: Description of each objective by name, see `describe_objectives`.
    """

    config: dict[str, Any]
    data_info: dict[str, Any]
    methods: dict[str, dict[str, Any]]


def find_teacher(checkpoint: str, workdir: Path) -> Path:
    """Returns the folder of a run's teacher.

    Args:
      checkpoint: The value of `teacher.checkpoint` in the run's config.
      workdir: The run's folder.
    """
    return Path(checkpoint) if checkpoint else RunFolder(workdir).teacher


def to_json_dict(config: Any) -> dict[str, Any]:
    """Returns a `ConfigDict` or a dict as JSON gives it back: lists for tuples."""
    tree = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(tree))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts to one dict whose keys are joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def without_unused(config: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """Returns a config without the sections of unused objectives; such a section has a weight.

    Args:
      config: A config as nested dicts.
      used: Names of the objectives whose sections stay.
    """
    return {
        key: value
        for key, value in config.items()
        if key in used or not (isinstance(value, Mapping) and "weight" in value)
    }


def config_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lists the keys whose change makes a config another run, with both values.

    Sections of objectives that neither config uses do not count.

    Args:
      old: The config of the earlier start, as nested dicts.
      new: The config of this start.
    """
    used = {*old.get("objectives", ()), *new.get("objectives", ())}
    before, after = (flatten(without_unused(config, used)) for config in (old, new))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        grew = key in GROWING_KEYS and was is not None and now is not None and now >= was
        if was == now or key in FREE_KEYS or grew:
            continue
        lines.append(f"{key} (was {was!r}, now {now!r})")
    return lines


def read_run_config(workdir: Path) -> RunConfig:
    """Reads the config of a run.

    Args:
      workdir: The run's folder.

    Raises:
      UsageError: The folder holds no run, or a run of a later version.
    """
    folder = RunFolder(workdir)
    path = folder.config
    try:
        content = read_json(path)
        version = content.pop(_VERSION, 0)
        data_info = content.pop(_DATA_INFO)
        if not (isinstance(data_info, dict) and data_info.keys() >= _DATA_INFO_KEYS):
            raise KeyError(_DATA_INFO)
        if not content.keys() >= _SECTIONS:
            raise KeyError
        if not isinstance(version, int):
            raise ValueError(f"{_VERSION} is no whole number")
        if version > VERSION:
            raise UsageError(f"{workdir} holds a run of a later version of fairkd_jax; update fairkd_jax")
        methods = content.pop(_METHODS, {})
        config, methods = upgrade(content, methods, version)
        _check_sections(config)
        check_form(config, data_info, methods)
    except UsageError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_population():
            raise UsageError(f"{workdir} holds a population; name a folder in {folder.members}") from None
        where = "" if workdir.exists() else explain_missing(workdir)
        raise UsageError(
            f"{workdir} holds no run (no {path.name} in it){where}; train into it first"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is damaged, or not the config of a run ({error})") from None
    return RunConfig(config, data_info, methods)


def _check_sections(config: Mapping[str, Any]) -> None:
    """Checks that a config has the sections and the keys that all readers of a run use.

    Raises:
      KeyError: A key of the student is missing.
      AttributeError: A section is not a dict.
    """
    if not config["student"].keys() >= set(MODEL_KEYS):
        raise KeyError("student")
    for section in ("teacher", "optimizer", "data"):
        config[section].keys()


def check_resumable(workdir: Path, config: Mapping[str, Any], data_info: Mapping[str, Any]) -> None:
    """Checks that a folder is empty or holds this run.

    Args:
      workdir: The run's folder.
      config: Config of the run as nested dicts, with lists for tuples.
      data_info: The known part of the description of data and teacher. Other entries of the run are not
        compared.

    Raises:
      UsageError: The folder belongs to a run with another config, other data or another teacher, or to an
        unknown run.
    """
    folder = RunFolder(workdir)
    if not folder.is_run():
        if any(path.name.isdigit() for path in folder.checkpoints.glob("*/*")):
            raise UsageError(
                f"{workdir} holds checkpoints but no {folder.config.name}, so that nobody knows of which run;"
                " choose another --workdir, or put the file back"
            )
        return
    old = read_run_config(workdir)
    known = {key: old.data_info.get(key) for key in data_info}
    earlier = take_open_values(old.config, old.data_info, config)
    changed = config_diff(earlier | {_DATA_INFO: known}, {**config, _DATA_INFO: dict(data_info)})
    if changed:
        raise UsageError(
            f"{workdir} holds a run with another config: {', '.join(changed)}; choose another --workdir"
        )


def write_run_config(
    workdir: Path,
    config: Mapping[str, Any],
    data_info: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
) -> None:
    """Writes the config of a run into its folder, which then belongs to this run.

    Args:
      workdir: The run's folder.
      config: Config of the run as nested dicts, with lists for tuples.
      data_info: The description of data and teacher.
      methods: Description of each objective by name, see `describe_objectives`.

    Raises:
      StorageError: The folder cannot be written to.
    """
    content = {_VERSION: VERSION, **config, _DATA_INFO: dict(data_info), _METHODS: dict(methods)}
    with writing(f"write to {workdir}", "make room there, or choose another --workdir"):
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(RunFolder(workdir).config, content)
