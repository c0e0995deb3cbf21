"""Fair feature distillation by maximum mean discrepancy (MFD, Jung et al. 2021, arXiv 2106.04411).

Each group's student embeddings of a class shall be distributed as the teacher's of that class, of all groups:
the student learns from the teacher and loses what tells the groups apart at once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import lecun_normal

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32
from fairkd_jax.types import Tree


def mmd_loss(
    student_embedding: jax.Array,
    teacher_embedding: jax.Array,
    label: jax.Array,
    group: jax.Array,
    mask: jax.Array | None = None,
    *,
    num_groups: int,
    num_classes: int,
) -> jax.Array:
    """Half the sum over classes and groups of MMD^2 between a group's student and the class's teacher.

    The kernel is exp(-d^2 / (2 sigma^2)). As in the authors' code, sigma^2 is one for all, the mean squared
    distance between the batch's student and teacher embeddings, through which no gradient passes; and means
    run over all ordered pairs, each embedding with itself included.

    Args:
      student_embedding: float [B, E], as wide as the teacher's.
      teacher_embedding: float [B, E].
      label: int32 [B].
      group: int32 [B], -1 where unknown: counts for the teacher alone.
      mask: float [B], 0 where a row does not count; None for all.
      num_groups: G.
      num_classes: C.

    Returns:
      Scalar, at least float32. Classes and groups without images in the batch add nothing.
    """
    student = at_least_float32(student_embedding)
    teacher = at_least_float32(jax.lax.stop_gradient(teacher_embedding))
    counts = jnp.ones(len(label), student.dtype) if mask is None else (mask > 0).astype(student.dtype)
    of_class = (label[None, :] == jnp.arange(num_classes)[:, None]) * counts[None, :]
    of_group = (group[None, :] == jnp.arange(num_groups)[:, None]).astype(student.dtype)
    taught = jnp.repeat(of_class, num_groups, axis=0)
    learnt = taught * jnp.tile(of_group, (num_classes, 1))
    within, between, fixed = (
        _squared_distances(a, b) for a, b in ((student, student), (student, teacher), (teacher, teacher))
    )
    variance = (counts @ between @ counts) / jnp.maximum(jnp.sum(counts), 1.0) ** 2
    variance = jax.lax.stop_gradient(jnp.where(variance > 0, variance, 1.0))

    def discrepancy(cell: tuple[jax.Array, jax.Array]) -> jax.Array:
        s, t = cell
        total = jnp.zeros((), student.dtype)
        for kernel, a, b, sign in ((near, s, s, 1.0), (across, s, t, -2.0), (far, t, t, 1.0)):
            pairs = jnp.sum(a) * jnp.sum(b)
            total += sign * (a @ kernel @ b) / jnp.where(pairs > 0, pairs, 1.0)
        return jnp.where(jnp.sum(s) > 0, total, 0.0)

    near, across, far = (jnp.exp(-distance / (2.0 * variance)) for distance in (within, between, fixed))
    return 0.5 * jnp.sum(jax.vmap(discrepancy)((learnt, taught)))


def _squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """[N, E] and [M, E] -> [N, M], at least 0."""
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * product, 0.0)


def objective() -> Objective:
    """Matching each group's embeddings of a class to the teacher's of that class; see `mmd_loss`.

    Where the models' widths differ, a learnt linear map stands between the student and this loss alone.

    Raises:
      UsageError: from `init`, where fewer than two groups are known.
    """

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        if np.count_nonzero(spec.group_counts.sum(axis=1)) < 2:
            raise UsageError("mfd needs training images of at least two known groups")
        state = {"cells": jnp.zeros(spec.group_counts.shape)}  # says how many groups and classes there are
        if spec.student_width == spec.teacher_width:
            return {}, state
        return {"kernel": lecun_normal()(key, (spec.student_width, spec.teacher_width))}, state

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        assert inputs.teacher is not None
        student = at_least_float32(inputs.student.embedding)
        if params:
            student = student @ params["kernel"]
        groups, classes = state["cells"].shape
        value = mmd_loss(
            student,
            inputs.teacher.embedding,
            *(inputs.batch[key] for key in ("label", "group", "mask")),
            num_groups=groups,
            num_classes=classes,
        )
        return value, (state, {})

    return Objective(init, loss, uses_teacher=True, debiases=True)
