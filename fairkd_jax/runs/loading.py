"""Models of finished runs, read from their folders."""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.distributed import broadcast_from_host0
from fairkd_jax.engine.sharding import make_abstract_arrays
from fairkd_jax.errors import UsageError
from fairkd_jax.models import Classifier
from fairkd_jax.recipe.sections import parse_model
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.folder import CONTENTS, RunConfig, read_run_config
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.status import count_run_steps
from fairkd_jax.types import Tree


@dataclass(frozen=True)
class LoadedModel:
    """The student of a finished run, ready for inference.

    Attributes:
      module: The model.
      variables: The model's parameters and statistics, on the mesh.
      architecture: The name of the model.
      image_size: Side of the model's images in pixels.
      step: The step of the checkpoint.
    """

    module: Classifier
    variables: Tree
    architecture: str
    image_size: int
    step: int

    def compute_fingerprint(self) -> str:
        """Computes a hash of all parameters and statistics, which identifies the model."""
        content = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(self.variables)):
            content.update(jax.tree_util.keystr(path).encode())
            content.update(np.ascontiguousarray(leaf).tobytes())
        return content.hexdigest()[:16]


def load_model(workdir: Path, *, which: str, mesh: jax.sharding.Mesh) -> LoadedModel:
    """Loads the student of a run.

    Args:
      workdir: The run's folder.
      which: "best", "last" or the number of a step.
      mesh: The devices that get the model.

    Raises:
      UsageError: The folder holds no run or no such checkpoint, or the checkpoint does not fit the config.
    """
    return _restore_model(workdir, read_run_config(workdir), which, mesh)


def _restore_model(workdir: Path, saved: RunConfig, which: str, mesh: jax.sharding.Mesh) -> LoadedModel:
    """Restores the student of a run whose config was read already; see `load_model`."""
    recipe = parse_model(saved.config["student"])
    module = recipe.create(len(saved.data_info["class_names"]), len(saved.data_info["group_names"]))
    size = saved.config["data"]["image_size"]
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    target = make_abstract_arrays(
        mesh, {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    )
    if not RunFolder(workdir).checkpoints.exists():
        raise UsageError(f"{workdir} has no checkpoints yet; finish its training first")
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        step, restored = checkpoints.restore_student(which, target)
    return LoadedModel(module, restored, recipe.architecture, size, step)


def load_run(workdir: Path, which: str, data_info: Mapping[str, Any], mesh: jax.sharding.Mesh) -> LoadedModel:
    """Loads the student of a run that was trained on the same split of the same data.

    Args:
      workdir: The run's folder.
      which: "best", "last" or the number of a step.
      data_info: The description of the data.
      mesh: The devices that get the model.

    Raises:
      UsageError: The run was trained on other data, or as `load_model` does.
    """
    saved = read_run_config(workdir)
    check_trained_on(workdir, saved, data_info)
    return _restore_model(workdir, saved, which, mesh)


def check_trained_on(workdir: Path, saved: RunConfig, data_info: Mapping[str, Any]) -> None:
    """Checks that a run was trained on the same split of the same data.

    Args:
      workdir: The run's folder.
      saved: Its config.
      data_info: The description of the data.

    Raises:
      UsageError: The run was trained on other data, other classes, or another order of classes.
    """
    own = saved.data_info
    if own["class_names"] != data_info["class_names"]:
        if sorted(own["class_names"]) == sorted(data_info["class_names"]):
            names = ",".join(own["class_names"])
            raise UsageError(
                f"{workdir} has the classes in another order; set data.manifest.class_names={names} to use it"
            )
        raise UsageError(
            f"{workdir} was trained for other classes than {data_info['dataset']}'s; name a run on the same"
            " classes"
        )
    # With another split, the model may have been trained on images of this test split.
    both = [info[CONTENTS] for info in (own, data_info) if CONTENTS in info]
    if own["digests"] != data_info["digests"] or both[0:1] != both[-1:]:
        raise UsageError(
            f"{workdir} was trained on other images, or on another split of {data_info['dataset']}; name a"
            " run on the same data"
        )


def load_teacher(workdir: Path, data_info: Mapping[str, Any], mesh: jax.sharding.Mesh) -> LoadedModel:
    """Loads a teacher, whose training must be complete.

    A teacher must not change while a student learns from the teacher.

    Args:
      workdir: The teacher's folder.
      data_info: The description of the data.
      mesh: The devices that get the model.

    Raises:
      UsageError: The teacher's training is not complete, or as `load_run` does.
    """
    teacher = load_run(workdir, "best", data_info, mesh)
    saved = read_run_config(workdir)
    done, steps = find_last_step(workdir), count_run_steps(saved)
    if done < steps:
        raise UsageError(f"the teacher in {workdir} is at step {done} of {steps}; finish its training first")
    return teacher


def find_last_step(workdir: Path) -> int:
    """Finds the step of a run's last checkpoint, the same in all processes; 0 without a checkpoint."""
    if not broadcast_from_host0(RunFolder(workdir).checkpoints.exists()):
        return 0
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        return checkpoints.last_step() or 0
