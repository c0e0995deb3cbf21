"""The teacher's mean embedding of each class, for KD++ (Wang et al. 2023, arXiv 2305.17007).

The means are computed once over the training split, with the augmentation of the teacher's own training.
Their file lies beside the teacher's checkpoints and holds a hash of the teacher: means of another teacher are
refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.data.augment import Augmentation, augment
from fairkd_jax.data.batches import iterate_eval_batches
from fairkd_jax.data.pipeline import Split
from fairkd_jax.digests import read_arrays, write_arrays
from fairkd_jax.engine.sharding import make_batch_sharding, make_replicated_sharding, to_global
from fairkd_jax.engine.state import rng_key
from fairkd_jax.errors import UsageError, writing
from fairkd_jax.progress import Progress
from fairkd_jax.runs.loading import LoadedModel
from fairkd_jax.training.checks import check_classes
from fairkd_jax.types import Batch, Tree

_LOG_EVERY = 20  # batches


class ClassMeans(NamedTuple):
    """The content of the file.

    Attributes:
      means: Mean embeddings, float32 [C, E].
      counts: Number of images of each class, int64 [C].
      class_names: Names of the classes, in their order.
      teacher: Fingerprint of the teacher.
    """

    means: np.ndarray
    counts: np.ndarray
    class_names: np.ndarray
    teacher: str


def compute(
    teacher: LoadedModel,
    split: Split,
    class_names: Sequence[str],
    *,
    augmentation: Augmentation,
    seed: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> ClassMeans:
    """Computes the class means in one pass of the teacher over a split.

    Args:
      teacher: The teacher.
      split: The training split.
      class_names: Names of the classes.
      augmentation: Random changes of the images.
      seed: Seed of the augmentation.
      batch_size: Number of images in a batch, over all devices.
      mesh: The devices.

    Raises:
      UsageError: A class has no images.
    """
    check_classes(split, class_names)

    def sums(variables: Tree, batch: Batch, number: jax.Array) -> jax.Array:
        key = rng_key(seed, "class_means", number)
        images = augment(key, batch["image"], augmentation=augmentation, size=teacher.image_size)
        outputs: Any = teacher.module.apply(variables, images)
        member = jax.nn.one_hot(batch["label"], len(class_names)) * batch["mask"][:, None]
        return jnp.matmul(member.T, outputs.embedding, precision=jax.lax.Precision.HIGHEST)

    everywhere = make_replicated_sharding(mesh)
    add = jax.jit(
        sums, in_shardings=(everywhere, make_batch_sharding(mesh), everywhere), out_shardings=everywhere
    )
    batches = iterate_eval_batches(
        split,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    steps = -(-len(split) // batch_size)
    progress = Progress("class means", step=0, total_steps=steps, batch_size=batch_size)
    total = np.zeros((), np.float64)
    for number, batch in enumerate(batches):
        part = add(teacher.variables, to_global(batch, make_batch_sharding(mesh)), jnp.int32(number))
        total = total + np.asarray(jax.device_get(part), np.float64)
        progress.advance(number + 1)
        if (number + 1) % _LOG_EVERY == 0 or number + 1 == steps:
            progress.report(number + 1, progress.measure_rate(number + 1), {})
    progress.close()
    counts = np.bincount(split.labels, minlength=len(class_names))
    means = (total / counts[:, None]).astype(np.float32)
    return ClassMeans(means, counts, np.asarray(class_names, dtype=np.str_), teacher.compute_fingerprint())


def save(path: Path, class_means: ClassMeans) -> None:
    """Writes the file, whole or not at all.

    Raises:
      StorageError: The folder cannot be written to.
    """
    with writing(f"write {path}", "make room there, or use a copy of the teacher that can be written to"):
        write_arrays(path, class_means._asdict())


def load(path: Path, teacher: LoadedModel, class_names: Sequence[str]) -> ClassMeans:
    """Reads the file.

    Raises:
      UsageError: The file is damaged, or belongs to another teacher or to other classes.
    """
    advice = "delete that file, and the means are computed again"
    arrays = read_arrays(path, advice)
    if missing := set(ClassMeans._fields) - arrays.keys():
        raise UsageError(f"{path} holds no class means, {', '.join(sorted(missing))} missing; {advice}")
    found = ClassMeans(arrays["means"], arrays["counts"], arrays["class_names"], str(arrays["teacher"]))
    if found.teacher != teacher.compute_fingerprint():
        raise UsageError(f"the class means in {path} are of another teacher; {advice}")
    if found.class_names.tolist() != list(class_names):
        raise UsageError(f"the class means in {path} are of other classes; {advice}")
    if found.means.ndim != 2 or len(found.means) != len(class_names) or not np.isfinite(found.means).all():
        raise UsageError(f"{path} holds no usable class means; {advice}")
    return found
