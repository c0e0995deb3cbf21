"""Fair feature distillation by maximum mean discrepancy (MFD, Jung et al. 2021, arXiv 2106.04411).

Within a class, the student's embeddings of each group should have the distribution of the teacher's
embeddings of all groups. The student learns from the teacher and at the same time loses the differences
between groups.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import lecun_normal

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, TaskInfo, promote_to_float32
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
    """Computes half the sum, over classes and groups, of MMD^2 between student and teacher embeddings.

    Each term compares the student's embeddings of a group and class with the teacher's embeddings of the
    class. The kernel is exp(-d^2 / (2 sigma^2)). As in the authors' code, a single sigma^2 serves all terms:
    the mean squared distance between the batch's student and teacher embeddings, without a gradient. Means
    are taken over all ordered pairs, with the pair of each embedding and itself.

    Args:
      student_embedding: The student's embedding, float [B, E], as wide as the teacher's.
      teacher_embedding: The teacher's embedding, float [B, E], without a gradient.
      label: Labels, int32 [B].
      group: Groups, int32 [B]. A row of unknown group (-1) counts for the teacher alone.
      mask: Mask, float [B], 0 where a row does not count; None for no mask.
      num_groups: Number G of groups.
      num_classes: Number C of classes.

    Returns:
      The loss, a scalar, at least float32. Classes and groups without images in the batch add nothing.
    """
    student = promote_to_float32(student_embedding)
    teacher = promote_to_float32(jax.lax.stop_gradient(teacher_embedding))
    counts = jnp.ones(len(label), student.dtype) if mask is None else (mask > 0).astype(student.dtype)
    of_class = (label[None, :] == jnp.arange(num_classes)[:, None]) * counts[None, :]
    of_group = (group[None, :] == jnp.arange(num_groups)[:, None]).astype(student.dtype)
    teacher_cells = jnp.repeat(of_class, num_groups, axis=0)
    student_cells = teacher_cells * jnp.tile(of_group, (num_classes, 1))
    within, between, fixed = (
        _compute_squared_distances(a, b)
        for a, b in ((student, student), (student, teacher), (teacher, teacher))
    )
    variance = (counts @ between @ counts) / jnp.maximum(jnp.sum(counts), 1.0) ** 2
    variance = jax.lax.stop_gradient(jnp.where(variance > 0, variance, 1.0))

    def compute_discrepancy(cell: tuple[jax.Array, jax.Array]) -> jax.Array:
        s, t = cell
        total = jnp.zeros((), student.dtype)
        for kernel, a, b, sign in ((near, s, s, 1.0), (across, s, t, -2.0), (far, t, t, 1.0)):
            pairs = jnp.sum(a) * jnp.sum(b)
            total += sign * (a @ kernel @ b) / jnp.where(pairs > 0, pairs, 1.0)
        return jnp.where(jnp.sum(s) > 0, total, 0.0)

    near, across, far = (jnp.exp(-distance / (2.0 * variance)) for distance in (within, between, fixed))
    return 0.5 * jnp.sum(jax.vmap(compute_discrepancy)((student_cells, teacher_cells)))


def _compute_squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the squared distances [N, M], at least 0, between rows [N, E] and rows [M, E]."""
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * product, 0.0)


def make_objective() -> Objective:
    """Makes the objective that matches each group's embeddings to the teacher's of the class; see `mmd_loss`.

    Where the models' widths differ, a learned linear map stands between the student and this loss alone.

    Raises:
      UsageError: From `init`: fewer than two groups are known.
    """

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        if np.count_nonzero(info.group_counts.sum(axis=1)) < 2:
            raise UsageError("mfd needs training images of at least two known groups")
        state = {"cells": jnp.zeros(info.group_counts.shape)}  # says the numbers of groups and classes
        if info.student_width == info.teacher_width:
            return {}, state
        return {"kernel": lecun_normal()(key, (info.student_width, info.teacher_width))}, state

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        assert inputs.teacher is not None
        student = promote_to_float32(inputs.student.embedding)
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

    return Objective(init, loss, label="MFD", uses_teacher=True, debiases=True)
