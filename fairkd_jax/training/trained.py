"""A finished run's student: read from its folder, ready to be used."""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fairkd_jax.errors import UsageError
from fairkd_jax.models import EfficientNet
from fairkd_jax.training.checkpoint import Checkpoints
from fairkd_jax.training.config import make_model
from fairkd_jax.training.sharding import shapes_on
from fairkd_jax.types import Tree


@dataclass(frozen=True)
class Trained:
    """A finished run's student, ready to be used.

    Attributes:
      module: the model.
      variables: its parameters and statistics, on the mesh.
      architecture: its name.
      image_size: pixels of the side of its images.
      step: the step it was saved at.
    """

    module: EfficientNet
    variables: Tree
    architecture: str
    image_size: int
    step: int

    def fingerprint(self) -> str:
        """Tells models apart: a hash of all parameters and statistics."""
        content = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(self.variables)):
            content.update(jax.tree_util.keystr(path).encode())
            content.update(np.ascontiguousarray(leaf).tobytes())
        return content.hexdigest()[:16]


def load_trained(
    workdir: Path, config: ConfigDict, task: Mapping[str, Any], *, which: str, mesh: jax.sharding.Mesh
) -> Trained:
    """Reads the student of a run.

    Args:
      workdir: the run's folder.
      config: its config.
      task: its task, as `task_of` tells it.
      which: "best", "last" or a step's number.
      mesh: where to put it.
    """
    module = make_model(config.student, len(task["class_names"]), len(task["group_names"]))
    size = config.data.image_size
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    target = shapes_on(mesh, {"params": variables["params"], "batch_stats": variables["batch_stats"]})
    if not (workdir / "checkpoints").exists():
        raise UsageError(f"{workdir} has no checkpoints yet; finish its training first")
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        step, restored = checkpoints.restore_student(which, target)
    return Trained(module, restored, config.student.architecture, size, step)
