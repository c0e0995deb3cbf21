"""Distances and angles between the embeddings of a batch, safe to differentiate."""

import jax
import jax.numpy as jnp

# Where published code clamps: RKD squared distances, torch's `normalize` the lengths that it divides by.
MIN_SQUARED_DISTANCE = 1e-12
MIN_LENGTH = 1e-12


def squared_distances(emb_bd: jax.Array) -> jax.Array:
    """Squared Euclidean distances between all rows, from explicit differences, a row at a time.

    Through inner products, rows that are close would be apart by rounding errors.

    Args:
      emb_bd: float [B, D].

    Returns:
      [B, B]; exactly 0 for rows that coincide.
    """

    @jax.checkpoint
    def row(anchor_d: jax.Array) -> jax.Array:
        return jnp.sum((emb_bd - anchor_d[None, :]) ** 2, axis=1)

    return jax.lax.map(row, emb_bd)


def pairwise_distances(emb_bd: jax.Array) -> jax.Array:
    """Euclidean distances between all rows.

    Squared distances are clamped to 1e-12 before the root, where the gradient is 0, and the diagonal is set
    to 0 after it: the gradient is finite for rows that coincide.

    Args:
      emb_bd: float [B, D].

    Returns:
      [B, B], the diagonal 0.
    """
    squared_bb = squared_distances(emb_bd)
    clamped_bb = jnp.where(squared_bb >= MIN_SQUARED_DISTANCE, squared_bb, MIN_SQUARED_DISTANCE)
    return jnp.where(jnp.eye(emb_bd.shape[0], dtype=bool), 0.0, jnp.sqrt(clamped_bb))


def robust_gram(emb_bd: jax.Array) -> jax.Array:
    """Inner products [B, B] of embeddings [B, D] about their median, at full precision on every platform.

    Distances and angles do not change when all rows move together, so the median is a constant to the
    gradient. Near the origin differences of inner products lose less to rounding, and unlike the mean the
    median stays among the rows when one of them is far away.
    """
    emb_bd = emb_bd - jax.lax.stop_gradient(jnp.median(emb_bd, axis=0, keepdims=True))
    return jnp.matmul(emb_bd, emb_bd.T, precision=jax.lax.Precision.HIGHEST)


def inverse_lengths(emb_bd: jax.Array, gram_bb: jax.Array) -> jax.Array:
    """`1 / |e_j - e_i|` for all pairs of rows; 0, with gradient 0, for rows that coincide.

    Rows coincide where they are less than 1e-12 apart, as in published code, or closer than inner products
    of this precision can tell (in float32 about a thousandth of their distance to the median).

    Args:
      emb_bd: float [B, D].
      gram_bb: `robust_gram(emb_bd)`.

    Returns:
      [B, B].
    """
    squared_bb = squared_distances(emb_bd)
    squares_b = jnp.diagonal(gram_bb)
    resolution_bb = 8 * jnp.finfo(emb_bd.dtype).eps * (squares_b[:, None] + squares_b[None, :])
    apart_bb = squared_bb >= jnp.maximum(jax.lax.stop_gradient(resolution_bb), MIN_LENGTH**2)
    return jnp.where(apart_bb, 1.0 / jnp.sqrt(jnp.where(apart_bb, squared_bb, 1.0)), 0.0)
