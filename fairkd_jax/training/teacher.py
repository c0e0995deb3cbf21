"""The class means of a teacher: read from its folder, or computed there when first needed."""

from collections.abc import Sequence
from pathlib import Path

import jax

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.distributed import broadcast_from_host0
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.recipe.sections import parse_augmentation
from fairkd_jax.runs.dataset import describe_data, open_recorded_data
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.runs.loading import LoadedModel, load_teacher
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.training import class_means
from fairkd_jax.training.class_means import ClassMeans


def find_class_means(
    folder: Path, teacher: LoadedModel, dataset: Dataset, mesh: jax.sharding.Mesh
) -> ClassMeans:
    """Returns the teacher's mean embedding of each class, computed and saved when first needed.

    Args:
      folder: The teacher's folder.
      teacher: The teacher.
      dataset: The data set of the training.
      mesh: The devices.

    Raises:
      UsageError: The file in the folder is damaged, or a class has no images.
    """
    path, names = RunFolder(folder).class_means, dataset.info.class_names
    if broadcast_from_host0(path.exists()):
        return class_means.load(path, teacher, names)
    means = _compute_means(folder, teacher, dataset, mesh)
    if not jax.process_index():
        try:
            class_means.save(path, means)
        except UsageError as error:  # the teacher may be in another user's folder
            print(f"{error}; the class means are used, but not kept")
    return means


def _compute_means(
    folder: Path, teacher: LoadedModel, dataset: Dataset, mesh: jax.sharding.Mesh
) -> ClassMeans:
    """Computes the class means with the augmentation and the batch size of the teacher's training."""
    config = read_run_config(folder).config
    rows = -(-config["batch_size"] // mesh.size) * mesh.size
    return class_means.compute(
        teacher,
        dataset.split("train"),
        dataset.info.class_names,
        augmentation=parse_augmentation(config["augment"]),
        seed=config["data"]["seed"],
        batch_size=rows,
        mesh=mesh,
    )


def write_class_means(
    folder: Path, *, overwrite: bool = False, devices: Sequence[jax.Device] | None = None
) -> ClassMeans:
    """Computes a finished teacher's mean embedding of each class, and saves it beside the teacher.

    Args:
      folder: The teacher's folder.
      overwrite: Whether to replace an existing file.
      devices: The devices of the computation; all devices by default.

    Returns:
      The content of the file `class_means.npz` in the folder.

    Raises:
      UsageError: The folder holds no finished run, its data cannot be read, or a class has no images.
    """
    saved = read_run_config(folder)
    mesh = make_mesh(devices)
    dataset = open_recorded_data(folder, saved)
    teacher = load_teacher(folder, describe_data(dataset), mesh)
    path = RunFolder(folder).class_means
    if path.exists() and not overwrite:
        return class_means.load(path, teacher, saved.data_info["class_names"])
    means = _compute_means(folder, teacher, dataset, mesh)
    if not jax.process_index():
        class_means.save(path, means)
    return means
