"""DIST, distillation from a stronger teacher (Huang et al. 2022, arXiv 2205.10536, equations 7 to 11).

The student copies how the teacher's probabilities correlate instead of their values: over the classes of an
image, and over the images of a batch for each class.
"""

import math

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, at_least_float32, stateless
from fairkd_jax.objectives.ckd import check_temperature
from fairkd_jax.ops.geometry import safe_sqrt
from fairkd_jax.types import Tree

# What the authors' code adds to the product of the norms.
EPSILON = 1e-8


@jax.custom_jvp
def _softmaxes(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The softmax of z [B, C], at most 0, and the same less its mean over the classes.

    The second is exactly 0 for equal logits. Beside 1/C small probabilities would be lost, and without it
    almost even ones lose digits: each use takes the one that suits it.
    """
    excess = jnp.expm1(z)
    total = jnp.sum(jnp.exp(z), axis=1, keepdims=True)
    return jnp.exp(z) / total, (excess - jnp.mean(excess, axis=1, keepdims=True)) / total


@_softmaxes.defjvp
def _softmaxes_jvp(primals: tuple, tangents: tuple) -> tuple:
    """`dp = p (dz - <p, dz>)` with dz counted from that of the largest logit.

    Where that one's probability is almost 1, the usual form is a difference of equal numbers.
    """
    (z,), (dz,) = primals, tangents
    p, centred = _softmaxes(z)
    top = jnp.argmax(z, axis=1)[:, None]
    dz -= jnp.take_along_axis(dz, top, axis=1)
    dp = p * (dz - jnp.sum(p * dz, axis=1, keepdims=True))
    return (p, centred), (dp, dp)


def _norm(x: jax.Array) -> jax.Array:
    """Lengths along the last axis, kept; gradient 0 at 0."""
    return safe_sqrt(jnp.sum(x**2, axis=-1, keepdims=True))


def _one_minus_cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """`1 - <x, y> / (|x| |y| + 1e-8)` along the last axis, without cancellation where x and y almost agree.

    There it is taken from the difference of the two directions; where they are far apart, that difference is
    the one to lose digits.

    Args:
      x: [N, M].
      y: [N, M].

    Returns:
      [N].
    """
    norm_x, norm_y = _norm(x), _norm(y)
    product = (norm_x * norm_y)[:, 0]
    directed = product > 0
    unit_x, unit_y = (z / jnp.where(directed[:, None], norm, 1.0) for z, norm in ((x, norm_x), (y, norm_y)))
    angle = 0.5 * jnp.sum((unit_x - unit_y) ** 2, axis=1)  # 1 - cosine
    share = EPSILON / (product + EPSILON)
    plain = 1.0 - jnp.sum(x * y, axis=1) / (product + EPSILON)
    return jnp.where(directed & (angle < 0.5), angle + share * (1.0 - angle), plain)


def dist_loss(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    beta: float,
    gamma: float,
    temperature: float,
    mask: jax.Array | None = None,
) -> jax.Array:
    """`T^2 (beta (1 - mean_b r_b) + gamma (1 - mean_c r_c))`.

    r_b is Pearson's correlation of the two softmaxes over the classes of image b, r_c over the batch for
    class c; each as the cosine of the centred vectors, with 1e-8 added to the product of their norms.

    Args:
      student_logits: float [B, C].
      teacher_logits: float [B, C]; no gradient reaches it.
      beta: weight of the correlation within images.
      gamma: weight of the correlation within classes.
      temperature: T > 0.
      mask: [B], 0 for rows that do not count.

    Returns:
      Scalar, at least float32; the second term couples the batch.
    """
    student = at_least_float32(student_logits)
    teacher = at_least_float32(jax.lax.stop_gradient(teacher_logits))
    valid = jnp.ones(student.shape[0], bool) if mask is None else mask > 0
    # What a row that does not count holds must not matter, not even where it is NaN.
    parts = [jnp.where(valid[:, None], z, 0.0) for z in (student, teacher)]
    count = jnp.maximum(jnp.sum(valid, dtype=student.dtype), 1.0)
    # Less the largest before the division, not after it: differences of float32 numbers are exact.
    largest = [jax.lax.stop_gradient(jnp.max(z, axis=1, keepdims=True)) for z in parts]
    pairs = [_softmaxes((z - top) / temperature) for z, top in zip(parts, largest, strict=True)]
    within_images = _one_minus_cosine(*(centred for _, centred in pairs))

    def over_batch(y: jax.Array) -> jax.Array:
        y = jnp.where(valid[:, None], y, 0.0)
        return jnp.where(valid[:, None], y - jnp.sum(y, axis=0, keepdims=True) / count, 0.0).T

    within_classes = jnp.mean(_one_minus_cosine(*(over_batch(p) for p, _ in pairs)))
    within_images = jnp.sum(jnp.where(valid, within_images, 0.0)) / count
    return temperature**2 * (beta * within_images + gamma * within_classes)


def objective(*, beta: float = 1.0, gamma: float = 1.0, temperature: float = 4.0) -> Objective:
    """Copying the correlations of the teacher's probabilities.

    Args:
      beta: weight of the correlation within images.
      gamma: weight of the correlation within classes.
      temperature: T > 0; 1.0 on ImageNet.

    Raises:
      UsageError: an option is out of range.
    """
    check_temperature("dist", temperature)
    for key, weight in (("beta", beta), ("gamma", gamma)):
        if not 0.0 <= weight < math.inf:
            raise UsageError(f"dist.{key}={weight} must be 0 or more, and finite")

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        del params
        assert inputs.teacher is not None
        value = dist_loss(
            inputs.student.logits,
            inputs.teacher.logits,
            beta=beta,
            gamma=gamma,
            temperature=temperature,
            mask=inputs.batch["mask"],
        )
        return value, (state, {})

    return Objective(stateless, loss, uses_teacher=True, smallest_batch=2)
