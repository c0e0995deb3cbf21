"""DIST, distillation from a stronger teacher (Huang et al. 2022, arXiv 2205.10536, equations 7 to 11).

The student copies the correlations of the teacher's probabilities instead of their values: over the classes
of an image, and over the images of a batch for each class.
"""

import math

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, init_nothing, promote_to_float32
from fairkd_jax.objectives.ckd import check_temperature
from fairkd_jax.ops.geometry import safe_sqrt
from fairkd_jax.types import Tree

# The authors' code adds this constant to the product of the norms.
EPSILON = 1e-8


@jax.custom_jvp
def _compute_softmaxes(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the softmax of z [B, C], at most 0, and the centered softmax with mean 0 over the classes.

    The centered softmax is exactly 0 for equal logits. It loses the digits of small probabilities beside 1/C;
    the softmax loses the digits of the differences between almost equal probabilities. Each caller takes the
    form whose digits it needs.
    """
    excess = jnp.expm1(z)
    total = jnp.sum(jnp.exp(z), axis=1, keepdims=True)
    return jnp.exp(z) / total, (excess - jnp.mean(excess, axis=1, keepdims=True)) / total


@_compute_softmaxes.defjvp
def _compute_softmaxes_jvp(primals: tuple, tangents: tuple) -> tuple:
    """Computes `dp = p (dz - <p, dz>)`, where dz is relative to the tangent of the largest logit.

    Where the largest probability is almost 1, the usual form is a difference of almost equal numbers.
    """
    (z,), (dz,) = primals, tangents
    p, centered = _compute_softmaxes(z)
    top = jnp.argmax(z, axis=1)[:, None]
    dz -= jnp.take_along_axis(dz, top, axis=1)
    dp = p * (dz - jnp.sum(p * dz, axis=1, keepdims=True))
    return (p, centered), (dp, dp)


def _compute_norm(x: jax.Array) -> jax.Array:
    """Computes lengths along the last axis, which stays with size 1; the gradient at 0 is 0."""
    return safe_sqrt(jnp.sum(x**2, axis=-1, keepdims=True))


def _compute_cosine_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes `1 - <x, y> / (|x| |y| + 1e-8)` along the last axis, without cancellation for close x and y.

    For close directions, the value comes from the difference of the two directions. For distant directions,
    that difference would lose digits, and the value comes from the formula.

    Args:
      x: Vectors, float [N, M].
      y: Vectors, float [N, M].

    Returns:
      Cosine distances, [N].
    """
    norm_x, norm_y = _compute_norm(x), _compute_norm(y)
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
    """Computes `T^2 (beta (1 - mean_b r_b) + gamma (1 - mean_c r_c))`.

    r_b is Pearson's correlation of the two softmaxes over the classes of image b. r_c is the correlation over
    the batch for class c. Each correlation is the cosine of the centered vectors, with 1e-8 added to the
    product of their norms.

    Args:
      student_logits: The student's logits, float [B, C].
      teacher_logits: The teacher's logits, float [B, C], without a gradient.
      beta: Weight of the correlation within images.
      gamma: Weight of the correlation within classes.
      temperature: Temperature T of both softmaxes, above 0.
      mask: Mask, [B], 0 for rows that do not count; None for no mask.

    Returns:
      The loss, a scalar, at least float32. The second term depends on the whole batch.
    """
    student = promote_to_float32(student_logits)
    teacher = promote_to_float32(jax.lax.stop_gradient(teacher_logits))
    valid = jnp.ones(student.shape[0], bool) if mask is None else mask > 0
    # The content of a row that does not count must not matter, even if it is NaN.
    parts = [jnp.where(valid[:, None], z, 0.0) for z in (student, teacher)]
    count = jnp.maximum(jnp.sum(valid, dtype=student.dtype), 1.0)
    # The largest logit is subtracted before the division: differences of float32 logits are exact.
    largest = [jax.lax.stop_gradient(jnp.max(z, axis=1, keepdims=True)) for z in parts]
    pairs = [_compute_softmaxes((z - top) / temperature) for z, top in zip(parts, largest, strict=True)]
    within_images = _compute_cosine_distance(*(centered for _, centered in pairs))

    def center_over_batch(y: jax.Array) -> jax.Array:
        y = jnp.where(valid[:, None], y, 0.0)
        return jnp.where(valid[:, None], y - jnp.sum(y, axis=0, keepdims=True) / count, 0.0).T

    within_classes = jnp.mean(_compute_cosine_distance(*(center_over_batch(p) for p, _ in pairs)))
    within_images = jnp.sum(jnp.where(valid, within_images, 0.0)) / count
    return temperature**2 * (beta * within_images + gamma * within_classes)


def make_objective(*, beta: float = 1.0, gamma: float = 1.0, temperature: float = 4.0) -> Objective:
    """Makes the objective that copies the correlations of the teacher's probabilities.

    Args:
      beta: Weight of the correlation over the classes of an image.
      gamma: Weight of the correlation over the batch for a class.
      temperature: Temperature T of both softmaxes, above 0; the authors use 1.0 on ImageNet.

    Raises:
      UsageError: An option is out of range.
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

    return Objective(init_nothing, loss, label="DIST", uses_teacher=True, smallest_batch=2)
