"""Distances and angles between the embeddings of a batch, safe to differentiate."""

import jax
import jax.numpy as jnp

# Where published code clamps: RKD squared distances, torch's `normalize` the lengths that it divides by.
MIN_SQUARED_DISTANCE = 1e-12
MIN_LENGTH = 1e-12


def centred_gram(emb_bd: jax.Array) -> jax.Array:
    """Inner products [B, B] of embeddings [B, D] about their mean, at full precision on every platform.

    Distances and angles do not change when all rows move together, so the mean is a constant to the
    gradient; near the origin the differences of inner products lose less to rounding.
    """
    emb_bd = emb_bd - jax.lax.stop_gradient(jnp.mean(emb_bd, axis=0, keepdims=True))
    return jnp.matmul(emb_bd, emb_bd.T, precision=jax.lax.Precision.HIGHEST)


def pairwise_distances(emb_bd: jax.Array) -> jax.Array:
    """Euclidean distances between all rows.

    Squared distances are clamped to 1e-12 before the root, where the gradient is 0, and the diagonal is set
    to 0 after it: the gradient is finite for rows that coincide.

    Args:
      emb_bd: float [B, D].

    Returns:
      [B, B], the diagonal 0.
    """
    gram_bb = centred_gram(emb_bd)
    squares_b = jnp.diagonal(gram_bb)
    squared_bb = squares_b[:, None] + squares_b[None, :] - 2.0 * gram_bb
    clamped_bb = jnp.where(squared_bb >= MIN_SQUARED_DISTANCE, squared_bb, MIN_SQUARED_DISTANCE)
    return jnp.where(jnp.eye(emb_bd.shape[0], dtype=bool), 0.0, jnp.sqrt(clamped_bb))


def inverse_lengths(emb_bd: jax.Array) -> jax.Array:
    """`1 / |e_j - e_i|` for all pairs of rows; 0, with gradient 0, where the length is below 1e-12.

    The differences are taken explicitly, a row at a time: through inner products, rows that coincide would
    get a length of rounding errors instead of 0.

    Args:
      emb_bd: float [B, D].

    Returns:
      [B, B].
    """

    @jax.checkpoint
    def row(anchor_d: jax.Array) -> jax.Array:
        squared_b = jnp.sum((emb_bd - anchor_d[None, :]) ** 2, axis=1)
        apart = squared_b >= MIN_LENGTH**2
        return jnp.where(apart, 1.0 / jnp.sqrt(jnp.where(apart, squared_b, 1.0)), 0.0)

    return jax.lax.map(row, emb_bd)
