"""The teacher's mean embedding of each class, which KD++ turns the student to.

Computed once over the training split, augmented as the teacher's own training was, and kept beside the
teacher's checkpoints with a hash of the teacher: another teacher's means are refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.data.augment import Augmentation, augment
from fairkd_jax.data.batches import eval_batches
from fairkd_jax.data.pipeline import Split
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_arrays
from fairkd_jax.training.sharding import over_batch, replicated, to_global
from fairkd_jax.training.state import purpose_key
from fairkd_jax.training.task import check_classes
from fairkd_jax.training.trained import Trained
from fairkd_jax.training.writers import Progress
from fairkd_jax.types import Batch, Tree

FILE_NAME = "class_means.npz"
_LOG_EVERY = 20  # batches


class ClassMeans(NamedTuple):
    """What the file holds.

    Attributes:
      means: float32 [C, E].
      counts: int64 [C], images of each class.
      class_names: the classes, in their order.
      teacher: the fingerprint of the teacher.
    """

    means: np.ndarray
    counts: np.ndarray
    class_names: np.ndarray
    teacher: str


def compute(
    teacher: Trained,
    split: Split,
    class_names: Sequence[str],
    *,
    augmentation: Augmentation,
    seed: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> ClassMeans:
    """Runs the teacher over a split, once.

    Args:
      teacher: in inference form.
      split: of the training.
      class_names: of its labels.
      augmentation: of the images, at random.
      seed: of the augmentation.
      batch_size: images at a time, over all devices.
      mesh: the devices.

    Raises:
      UsageError: a class has no images.
    """
    check_classes(split, class_names)

    def sums(variables: Tree, batch: Batch, number: jax.Array) -> jax.Array:
        key = purpose_key(seed, "class_means", number)
        images = augment(key, batch["image"], augmentation=augmentation, size=teacher.image_size)
        outputs: Any = teacher.module.apply(variables, images)
        member = jax.nn.one_hot(batch["label"], len(class_names)) * batch["mask"][:, None]
        return jnp.matmul(member.T, outputs.embedding, precision=jax.lax.Precision.HIGHEST)

    everywhere = replicated(mesh)
    add = jax.jit(sums, in_shardings=(everywhere, over_batch(mesh), everywhere), out_shardings=everywhere)
    batches = eval_batches(
        split,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    steps = -(-len(split) // batch_size)
    progress = Progress("class means", step=0, total_steps=steps, batch_size=batch_size)
    total = np.zeros((), np.float64)
    for number, batch in enumerate(batches):
        part = add(teacher.variables, to_global(batch, over_batch(mesh)), jnp.int32(number))
        total = total + np.asarray(jax.device_get(part), np.float64)
        progress.advance(number + 1)
        if (number + 1) % _LOG_EVERY == 0 or number + 1 == steps:
            progress.report(number + 1, progress.rate(number + 1), {})
    progress.close()
    counts = np.bincount(split.labels, minlength=len(class_names))
    means = (total / counts[:, None]).astype(np.float32)
    return ClassMeans(means, counts, np.asarray(class_names, dtype=np.str_), teacher.fingerprint())


def save(path: Path, class_means: ClassMeans) -> None:
    """Writes the file, whole or not at all.

    Raises:
      UsageError: the folder cannot be written to.
    """
    try:
        write_arrays(path, class_means._asdict())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def load(path: Path, teacher: Trained, class_names: Sequence[str]) -> ClassMeans:
    """Reads the file.

    Raises:
      UsageError: it is damaged, or it is of another teacher or of other classes.
    """
    advice = "delete that file, and it will be computed anew"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fields = {key: arrays[key] for key in ClassMeans._fields}
            found = ClassMeans(**fields | {"teacher": str(fields["teacher"])})
    except Exception as error:
        raise UsageError(f"{path} holds no class means ({type(error).__name__}); {advice}") from None
    if found.teacher != teacher.fingerprint():
        raise UsageError(f"the class means in {path} are of another teacher; {advice}")
    if found.class_names.tolist() != list(class_names):
        raise UsageError(f"the class means in {path} are of other classes; {advice}")
    if found.means.ndim != 2 or len(found.means) != len(class_names) or not np.isfinite(found.means).all():
        raise UsageError(f"{path} holds no usable class means; {advice}")
    return found
