"""Distances and angles between the embeddings of a batch, with finite gradients."""

import jax
import jax.numpy as jnp

# Limits of published code: RKD clamps squared distances, torch's `normalize` the lengths of its division.
MIN_SQUARED_DISTANCE = 1e-12
MIN_LENGTH = 1e-12


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Computes the square root, with gradient 0 at 0 instead of infinity.

    Args:
      x: Numbers of 0 or more, floating point, any shape.

    Returns:
      The roots, with the shape and dtype of `x`.
    """
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_vjp
def squared_distances(emb_bd: jax.Array) -> jax.Array:
    """Computes the squared Euclidean distances between all rows, from differences, a row at a time.

    Computed from inner products, the distances of close rows would be rounding errors. The gradient uses the
    same differences, also a row at a time: XLA's own gradient, through the loop, takes twice as long.

    Args:
      emb_bd: Embeddings, float [B, D].

    Returns:
      The squared distances, [B, B]; exactly 0 for rows that coincide.
    """
    return jax.lax.map(lambda anchor_d: jnp.sum((emb_bd - anchor_d[None, :]) ** 2, axis=1), emb_bd)


def _squared_distances_forward(emb_bd: jax.Array) -> tuple[jax.Array, jax.Array]:
    return squared_distances(emb_bd), emb_bd


def _squared_distances_backward(emb_bd: jax.Array, slope_bb: jax.Array) -> tuple[jax.Array]:
    def compute_row(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        anchor_d, slope_b = part
        return jnp.sum(slope_b[:, None] * (anchor_d[None, :] - emb_bd), axis=0)

    return (2.0 * jax.lax.map(compute_row, (emb_bd, slope_bb + slope_bb.T)),)


squared_distances.defvjp(_squared_distances_forward, _squared_distances_backward)


def pairwise_distances(emb_bd: jax.Array) -> jax.Array:
    """Computes the Euclidean distances between all rows.

    Squared distances are clamped to 1e-12 before the root, with gradient 0 below this limit. The diagonal is
    set to 0 after the root. The gradient is therefore finite for rows that coincide.

    Args:
      emb_bd: Embeddings, float [B, D].

    Returns:
      The distances, [B, B], with diagonal 0.
    """
    squared_bb = squared_distances(emb_bd)
    clamped_bb = jnp.where(squared_bb >= MIN_SQUARED_DISTANCE, squared_bb, MIN_SQUARED_DISTANCE)
    return jnp.where(jnp.eye(emb_bd.shape[0], dtype=bool), 0.0, jnp.sqrt(clamped_bb))


def robust_gram(emb_bd: jax.Array, squared_bb: jax.Array) -> jax.Array:
    """Computes the inner products of embeddings about a robust centre, at full precision everywhere.

    Distances and angles do not change if all rows move together, so that the centre is a constant to the
    gradient. Near the origin, differences of inner products lose less to rounding. The centre is the mean of
    the half of the rows that is nearest to the row with the smallest sum of distances. Unlike the mean of all
    rows, this centre stays near most rows if some rows are far away. (A median of each coordinate takes
    longer than all other operations together.)

    Args:
      emb_bd: Embeddings, float [B, D].
      squared_bb: Squared distances of the embeddings, [B, B]; see `squared_distances`.

    Returns:
      The inner products, [B, B].
    """
    squared_bb = jax.lax.stop_gradient(squared_bb)
    row_b = squared_bb[jnp.argmin(jnp.sum(jnp.sqrt(squared_bb), axis=1))]
    near_b = (row_b <= jnp.median(row_b)).astype(emb_bd.dtype)
    centre_d = jnp.sum(near_b[:, None] * emb_bd, axis=0) / jnp.sum(near_b)
    emb_bd = emb_bd - jax.lax.stop_gradient(centre_d)[None, :]
    return jnp.matmul(emb_bd, emb_bd.T, precision=jax.lax.Precision.HIGHEST)


def inverse_lengths(squared_bb: jax.Array, gram_bb: jax.Array) -> jax.Array:
    """Computes `1 / |e_j - e_i|` for all pairs of rows; 0, with gradient 0, for rows that coincide.

    Two rows coincide if their distance is below 1e-12, as in published code, or below the resolution of inner
    products in this precision (in float32 about a thousandth of the rows' distance to the centre).

    Args:
      squared_bb: Squared distances of the rows, [B, B]; see `squared_distances`.
      gram_bb: Inner products of the rows, [B, B]; see `robust_gram`.

    Returns:
      The inverse distances, [B, B].
    """
    squares_b = jnp.diagonal(gram_bb)
    resolution_bb = 8 * jnp.finfo(gram_bb.dtype).eps * (squares_b[:, None] + squares_b[None, :])
    apart_bb = squared_bb >= jnp.maximum(jax.lax.stop_gradient(resolution_bb), MIN_LENGTH**2)
    return jnp.where(apart_bb, 1.0 / jnp.sqrt(jnp.where(apart_bb, squared_bb, 1.0)), 0.0)
