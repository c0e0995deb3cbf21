"""Distances and angles between the embeddings of a batch, safe to differentiate."""

import jax
import jax.numpy as jnp

# Where published code clamps: RKD squared distances, torch's `normalize` the lengths that it divides by.
MIN_SQUARED_DISTANCE = 1e-12
MIN_LENGTH = 1e-12


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root of numbers that are 0 or more, with gradient 0 at 0 instead of infinity."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_vjp
def squared_distances(emb_bd: jax.Array) -> jax.Array:
    """Squared Euclidean distances between all rows, from explicit differences, a row at a time.

    Through inner products, rows that are close would be apart by rounding errors. The gradient takes the same
    differences, a row at a time as well: XLA's own, through the loop, takes twice as long.

    Args:
      emb_bd: float [B, D].

    Returns:
      [B, B]; exactly 0 for rows that coincide.
    """
    return jax.lax.map(lambda anchor_d: jnp.sum((emb_bd - anchor_d[None, :]) ** 2, axis=1), emb_bd)


def _squared_distances_forward(emb_bd: jax.Array) -> tuple[jax.Array, jax.Array]:
    return squared_distances(emb_bd), emb_bd


def _squared_distances_backward(emb_bd: jax.Array, slope_bb: jax.Array) -> tuple[jax.Array]:
    def row(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        anchor_d, slope_b = part
        return jnp.sum(slope_b[:, None] * (anchor_d[None, :] - emb_bd), axis=0)

    return (2.0 * jax.lax.map(row, (emb_bd, slope_bb + slope_bb.T)),)


squared_distances.defvjp(_squared_distances_forward, _squared_distances_backward)


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


def robust_gram(emb_bd: jax.Array, squared_bb: jax.Array) -> jax.Array:
    """Inner products of embeddings about a point in their midst, at full precision on every platform.

    Distances and angles do not change when all rows move together, so that point is a constant to the
    gradient. Near the origin differences of inner products lose less to rounding, and unlike the mean of all
    rows it stays among them when some are far away: it is the mean of the half that is nearest to the row
    with the smallest sum of distances. (A median of each coordinate takes longer than all else together.)

    Args:
      emb_bd: float [B, D].
      squared_bb: `squared_distances(emb_bd)`.

    Returns:
      [B, B].
    """
    squared_bb = jax.lax.stop_gradient(squared_bb)
    row_b = squared_bb[jnp.argmin(jnp.sum(jnp.sqrt(squared_bb), axis=1))]
    near_b = (row_b <= jnp.median(row_b)).astype(emb_bd.dtype)
    centre_d = jnp.sum(near_b[:, None] * emb_bd, axis=0) / jnp.sum(near_b)
    emb_bd = emb_bd - jax.lax.stop_gradient(centre_d)[None, :]
    return jnp.matmul(emb_bd, emb_bd.T, precision=jax.lax.Precision.HIGHEST)


def inverse_lengths(squared_bb: jax.Array, gram_bb: jax.Array) -> jax.Array:
    """`1 / |e_j - e_i|` for all pairs of rows; 0, with gradient 0, for rows that coincide.

    Rows coincide where they are less than 1e-12 apart, as in published code, or closer than inner products
    of this precision can tell (in float32 about a thousandth of their distance to the centre).

    Args:
      squared_bb: `squared_distances` of the rows.
      gram_bb: `robust_gram` of the rows.

    Returns:
      [B, B].
    """
    squares_b = jnp.diagonal(gram_bb)
    resolution_bb = 8 * jnp.finfo(gram_bb.dtype).eps * (squares_b[:, None] + squares_b[None, :])
    apart_bb = squared_bb >= jnp.maximum(jax.lax.stop_gradient(resolution_bb), MIN_LENGTH**2)
    return jnp.where(apart_bb, 1.0 / jnp.sqrt(jnp.where(apart_bb, squared_bb, 1.0)), 0.0)
