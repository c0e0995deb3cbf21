"""Relational knowledge distillation (Park et al. 2019, arXiv 1904.05068, equations 6 to 9).

The student copies the teacher's geometry: the distances and angles between the embeddings of a batch. The two
embeddings may therefore have different widths. Values and gradients equal those of the authors' code, with a
single exception: the gradient of the angle at equal rows is 0 here, and a huge rounding error in the authors'
code. Distances come from explicit differences; published code has rounding noise between equal rows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, init_nothing, promote_to_float32
from fairkd_jax.ops.geometry import inverse_lengths, pairwise_distances, robust_gram, squared_distances
from fairkd_jax.types import Tree

# Number of anchors that a pass of the angle loss computes together. Time of the loop's value and gradient at
# batch 128, on two cores: 49 ms with 1 anchor, 5.4 with 2, 4.6 with 4 and 8, 5.5 with 16. Each further anchor
# takes 0.25 MiB of memory.
ANCHORS = 4


def _compute_huber(x: jax.Array) -> jax.Array:
    """Computes Huber's loss, which is quadratic below 1 and linear above."""
    size = jnp.abs(x)
    return jnp.where(size < 1.0, 0.5 * x**2, size - 0.5)


def _prepare_embeddings(
    student_embedding: jax.Array, teacher_embedding: jax.Array, mask: jax.Array | None, smallest: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Casts both embeddings, stops the teacher's gradient, checks the batch size and applies the mask."""
    batch_size = student_embedding.shape[0]
    if batch_size < smallest:
        raise UsageError(f"this RKD loss needs a batch of at least {smallest} images, got {batch_size}")
    student = promote_to_float32(student_embedding)
    teacher = promote_to_float32(jax.lax.stop_gradient(teacher_embedding))
    if mask is None:
        return student, teacher, jnp.ones(batch_size, bool)
    valid = mask > 0
    # The content of a row that does not count must not matter, even if it is NaN.
    return jnp.where(valid[:, None], student, 0.0), jnp.where(valid[:, None], teacher, 0.0), valid


def _compute_relative_distances(emb_bd: jax.Array, valid_bb: jax.Array) -> jax.Array:
    """Computes distances [B, B] divided by the mean of all distances above 0 of valid pairs."""
    dist_bb = pairwise_distances(emb_bd)
    counted_bb = valid_bb & (dist_bb > 0)
    count = jnp.sum(counted_bb, dtype=dist_bb.dtype)
    count = jnp.maximum(count, 1.0)
    # A second sum of the deviations from the first mean: a single sum of B^2 numbers errs in the sixth digit.
    rough = jax.lax.stop_gradient(jnp.sum(jnp.where(counted_bb, dist_bb, 0.0)) / count)
    mean = rough + jnp.sum(jnp.where(counted_bb, dist_bb - rough, 0.0)) / count
    return dist_bb / jnp.where(mean > 0, mean, 1.0)


def distance_loss(
    student_embedding: jax.Array, teacher_embedding: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Computes the mean Huber loss between both models' distances divided by their mean (equations 6 to 8).

    Args:
      student_embedding: The student's embedding, float [B, D].
      teacher_embedding: The teacher's embedding, float [B, E], without a gradient.
      mask: Mask, [B], 0 for rows that do not count; None for no mask.

    Returns:
      The mean over all pairs of valid rows, with the diagonal, a scalar, at least float32.

    Raises:
      UsageError: The batch has fewer than 2 rows.
    """
    student, teacher, valid_b = _prepare_embeddings(student_embedding, teacher_embedding, mask, 2)
    valid_bb = valid_b[:, None] & valid_b[None, :]
    loss_bb = _compute_huber(
        _compute_relative_distances(student, valid_bb) - _compute_relative_distances(teacher, valid_bb)
    )
    pairs = jnp.sum(valid_bb, dtype=loss_bb.dtype)
    return jnp.sum(jnp.where(valid_bb, loss_bb, 0.0)) / jnp.maximum(pairs, 1.0)


def _compute_relations(emb_bd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the parts of all cosines: inner products and inverse distances, each [B, B]."""
    squared_bb = squared_distances(emb_bd)
    gram_bb = robust_gram(emb_bd, squared_bb)
    return gram_bb, inverse_lengths(squared_bb, gram_bb)


def angle_loss(
    student_embedding: jax.Array, teacher_embedding: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Computes the mean Huber loss between both models' cosines at i over all triples i, j, k (equation 9).

    The cosines of the angles come from inner products, for a few anchors i together. The backward pass
    computes the cosines again, so the [B, B, B] tensor never exists.

    Args:
      student_embedding: The student's embedding, float [B, D].
      teacher_embedding: The teacher's embedding, float [B, E], without a gradient.
      mask: Mask, [B], 0 for rows that do not count; None for no mask.

    Returns:
      The mean over all triples of valid rows, with degenerate triples (cosine 0 or 1), a scalar, at least
      float32.

    Raises:
      UsageError: The batch has fewer than 3 rows.
    """
    student, teacher, valid_b = _prepare_embeddings(student_embedding, teacher_embedding, mask, 3)
    parts = [_compute_relations(student), _compute_relations(teacher)]
    valid_bb = valid_b[:, None] & valid_b[None, :]

    def compute_cosines(part: tuple[jax.Array, jax.Array], i: jax.Array) -> jax.Array:
        gram_bb, inverse_bb = part
        to_b, inverse_b = gram_bb[i], inverse_bb[i]
        products_bb = gram_bb - to_b[None, :] - to_b[:, None] + gram_bb[i, i]
        return products_bb * (inverse_b[:, None] * inverse_b[None, :])

    @jax.checkpoint
    def sum_anchor_loss(i: jax.Array) -> jax.Array:
        loss_bb = _compute_huber(compute_cosines(parts[0], i) - compute_cosines(parts[1], i))
        return jnp.sum(jnp.where(valid_bb & valid_b[i], loss_bb, 0.0))

    triples = jnp.sum(valid_b, dtype=student.dtype) ** 3
    losses_b = jax.lax.map(sum_anchor_loss, jnp.arange(valid_b.shape[0]), batch_size=ANCHORS)
    return jnp.sum(losses_b) / jnp.maximum(triples, 1.0)


def _normalize_rows(emb_bd: jax.Array) -> jax.Array:
    """Scales rows to length 1; a zero row stays 0."""
    squared = jnp.sum(promote_to_float32(emb_bd) ** 2, axis=1, keepdims=True)
    return emb_bd / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))


def _make_relational_objective(
    loss_function: Callable[..., jax.Array], normalize: bool, label: str, smallest_batch: int
) -> Objective:
    """Makes the objective of a loss between two embeddings."""

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        assert inputs.teacher is not None
        student, teacher = inputs.student.embedding, inputs.teacher.embedding
        if normalize:
            student, teacher = _normalize_rows(student), _normalize_rows(teacher)
        return loss_function(student, teacher, inputs.batch["mask"]), (state, {})

    return Objective(init_nothing, loss, label=label, uses_teacher=True, smallest_batch=smallest_batch)


def make_distance_objective(*, normalize: bool = False) -> Objective:
    """Makes the objective that copies the teacher's distances; the usual weight is 25.

    Args:
      normalize: Whether to scale embeddings to length 1 first, as in the authors' classification branch.
    """
    return _make_relational_objective(distance_loss, normalize, "RKD-D", 2)


def make_angle_objective(*, normalize: bool = False) -> Objective:
    """Makes the objective that copies the teacher's angles; the usual weight is 50.

    Args:
      normalize: Whether to scale embeddings to length 1 first, as in the authors' classification branch.
    """
    return _make_relational_objective(angle_loss, normalize, "RKD-A", 3)
