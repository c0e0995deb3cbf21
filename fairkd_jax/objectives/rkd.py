"""Relational knowledge distillation (Park et al. 2019, arXiv 1904.05068, equations 6 to 9).

The student copies the teacher's geometry, the distances and angles between the embeddings of a batch, so
the two embeddings may have different widths. Values and gradients are those of the authors' code; the one
departure is the angle's gradient at rows that coincide, which is 0 here and a huge rounding artefact there.
Distances come from explicit differences; published code has rounding noise between rows that coincide.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, at_least_float32, stateless
from fairkd_jax.ops.geometry import inverse_lengths, pairwise_distances, robust_gram, squared_distances
from fairkd_jax.types import Tree

# How many anchors of the angle loss are worked on at a time. Value and gradient of the loop at batch 128, on
# two cores: 49 ms with 1, 5.4 with 2, 4.6 with 4 and 8, 5.5 with 16; its memory grows by 0.25 MiB with each.
ANCHORS = 4


def _huber(x: jax.Array) -> jax.Array:
    """Huber's loss with its bend at 1."""
    size = jnp.abs(x)
    return jnp.where(size < 1.0, 0.5 * x**2, size - 0.5)


def _prepare(
    student_embedding: jax.Array, teacher_embedding: jax.Array, mask: jax.Array | None, smallest: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Casts, stops the teacher's gradient, checks the batch size, applies the mask."""
    batch_size = student_embedding.shape[0]
    if batch_size < smallest:
        raise UsageError(f"this RKD loss needs a batch of at least {smallest} images, got {batch_size}")
    student = at_least_float32(student_embedding)
    teacher = at_least_float32(jax.lax.stop_gradient(teacher_embedding))
    if mask is None:
        return student, teacher, jnp.ones(batch_size, bool)
    valid = mask > 0
    # What a row that does not count holds must not matter, not even where it is NaN.
    return jnp.where(valid[:, None], student, 0.0), jnp.where(valid[:, None], teacher, 0.0), valid


def _relative_distances(emb_bd: jax.Array, valid_bb: jax.Array) -> jax.Array:
    """Distances [B, B] in units of the mean over those above 0, of valid pairs."""
    dist_bb = pairwise_distances(emb_bd)
    counted_bb = valid_bb & (dist_bb > 0)
    count = jnp.sum(counted_bb, dtype=dist_bb.dtype)
    count = jnp.maximum(count, 1.0)
    # Summed once more about itself: the first sum of B^2 numbers is off in the sixth digit.
    rough = jax.lax.stop_gradient(jnp.sum(jnp.where(counted_bb, dist_bb, 0.0)) / count)
    mean = rough + jnp.sum(jnp.where(counted_bb, dist_bb - rough, 0.0)) / count
    return dist_bb / jnp.where(mean > 0, mean, 1.0)


def distance_loss(
    student_embedding: jax.Array, teacher_embedding: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Mean Huber loss between the two models' distances, each divided by its mean (equations 6 to 8).

    Args:
      student_embedding: float [B, D].
      teacher_embedding: float [B, E]; no gradient reaches it.
      mask: [B], 0 for rows that do not count.

    Returns:
      Scalar, the mean over all pairs of valid rows, the diagonal included.

    Raises:
      UsageError: B < 2.
    """
    student, teacher, valid_b = _prepare(student_embedding, teacher_embedding, mask, 2)
    valid_bb = valid_b[:, None] & valid_b[None, :]
    loss_bb = _huber(_relative_distances(student, valid_bb) - _relative_distances(teacher, valid_bb))
    pairs = jnp.sum(valid_bb, dtype=loss_bb.dtype)
    return jnp.sum(jnp.where(valid_bb, loss_bb, 0.0)) / jnp.maximum(pairs, 1.0)


def _relations(emb_bd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What cosines are made of: inner products and inverse distances, each [B, B]."""
    squared_bb = squared_distances(emb_bd)
    gram_bb = robust_gram(emb_bd, squared_bb)
    return gram_bb, inverse_lengths(squared_bb, gram_bb)


def angle_loss(
    student_embedding: jax.Array, teacher_embedding: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Mean Huber loss between the two models' cosines of the angle at i in each triple i, j, k (equation 9).

    The cosines are built from inner products, a few anchors i at a time, and built again in the backward
    pass: the [B, B, B] tensor never exists.

    Args:
      student_embedding: float [B, D].
      teacher_embedding: float [B, E]; no gradient reaches it.
      mask: [B], 0 for rows that do not count.

    Returns:
      Scalar, the mean over all triples of valid rows, degenerate ones (cosine 0 or 1) included.

    Raises:
      UsageError: B < 3.
    """
    student, teacher, valid_b = _prepare(student_embedding, teacher_embedding, mask, 3)
    parts = [_relations(student), _relations(teacher)]
    valid_bb = valid_b[:, None] & valid_b[None, :]

    def cosines(part: tuple[jax.Array, jax.Array], i: jax.Array) -> jax.Array:
        gram_bb, inverse_bb = part
        to_b, inverse_b = gram_bb[i], inverse_bb[i]
        products_bb = gram_bb - to_b[None, :] - to_b[:, None] + gram_bb[i, i]
        return products_bb * (inverse_b[:, None] * inverse_b[None, :])

    @jax.checkpoint
    def anchor(i: jax.Array) -> jax.Array:
        loss_bb = _huber(cosines(parts[0], i) - cosines(parts[1], i))
        return jnp.sum(jnp.where(valid_bb & valid_b[i], loss_bb, 0.0))

    triples = jnp.sum(valid_b, dtype=student.dtype) ** 3
    losses_b = jax.lax.map(anchor, jnp.arange(valid_b.shape[0]), batch_size=ANCHORS)
    return jnp.sum(losses_b) / jnp.maximum(triples, 1.0)


def _unit_rows(emb_bd: jax.Array) -> jax.Array:
    """Rows of length 1; a zero row stays 0."""
    squared = jnp.sum(at_least_float32(emb_bd) ** 2, axis=1, keepdims=True)
    return emb_bd / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))


def _relation(loss_function: Callable[..., jax.Array], normalize: bool, smallest_batch: int) -> Objective:
    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        assert inputs.teacher is not None
        student, teacher = inputs.student.embedding, inputs.teacher.embedding
        if normalize:
            student, teacher = _unit_rows(student), _unit_rows(teacher)
        return loss_function(student, teacher, inputs.batch["mask"]), (state, {})

    return Objective(stateless, loss, uses_teacher=True, smallest_batch=smallest_batch)


def distance_objective(*, normalize: bool = False) -> Objective:
    """Copying the teacher's distances; usual weight 25.

    Args:
      normalize: whether to scale embeddings to length 1 first, as the authors' classification branch does.
    """
    return _relation(distance_loss, normalize, 2)


def angle_objective(*, normalize: bool = False) -> Objective:
    """Copying the teacher's angles; usual weight 50.

    Args:
      normalize: whether to scale embeddings to length 1 first, as the authors' classification branch does.
    """
    return _relation(angle_loss, normalize, 3)
