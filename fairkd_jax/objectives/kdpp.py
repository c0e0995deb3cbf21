"""KD++, distillation with the norm and direction of the embedding (Wang et al. 2023, arXiv 2305.17007).

The student's embedding should point to the teacher's mean embedding of the class. The student's embedding
should also be at least as long as the teacher's embedding (section 3.3). The objective is used beside
cross-entropy and CKD.
"""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, TaskInfo, promote_to_float32
from fairkd_jax.ops.geometry import safe_sqrt
from fairkd_jax.types import Tree


class Projector(nn.Module):
    """BatchNorm, dropout and a linear map from student embeddings [B, D] to [B, width], as the authors' `fc`.

    Attributes:
      width: Width of the teacher's embedding.
      dropout_rate: Rate of the dropout.
    """

    width: int
    dropout_rate: float

    @nn.compact
    def __call__(self, embedding: jax.Array, mask: jax.Array) -> jax.Array:
        """Projects embeddings [B, D]; rows whose mask [B] is 0 do not count in BatchNorm's statistics."""
        norm = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, name="norm")
        x = norm(embedding, mask=mask[:, None])
        x = nn.Dropout(self.dropout_rate, deterministic=False)(x)
        return nn.Dense(self.width, name="linear")(x)


def _compute_lengths(emb_bd: jax.Array) -> jax.Array:
    """Computes the lengths [B] of embeddings, with gradient 0 at 0."""
    return safe_sqrt(jnp.sum(emb_bd**2, axis=1))


def direction_norm_loss(
    student_embedding: jax.Array, teacher_embedding: jax.Array, class_means: jax.Array, labels: jax.Array
) -> jax.Array:
    """Computes `1 - <s, m_y / |m_y|> / max(|s|, |t|)` (equation 7).

    The loss is no cosine: while the student's embedding is shorter than the teacher's, a longer embedding has
    a smaller loss. At equal lengths, the gradient takes the student's length as the larger one, as in the
    authors' code.

    Args:
      student_embedding: The student's embedding, float [B, E], projected where the models' widths differ.
      teacher_embedding: The teacher's embedding, float [B, E], without a gradient.
      class_means: The teacher's mean embedding of each class, float [C, E], without a gradient.
      labels: Labels, int32 [B].

    Returns:
      Losses in [0, 2], [B], at least float32. Where both embeddings are 0, the loss is 1 with gradient 0.

    Raises:
      UsageError: The widths of the embeddings differ.
    """
    widths = (student_embedding.shape[1], teacher_embedding.shape[1], class_means.shape[1])
    if len(set(widths)) > 1:
        raise UsageError(
            f"KD++ compares embeddings of one width; got student {widths[0]}, teacher {widths[1]} and class"
            f" means {widths[2]}"
        )
    student = promote_to_float32(student_embedding)
    teacher = promote_to_float32(jax.lax.stop_gradient(teacher_embedding))
    means = promote_to_float32(jax.lax.stop_gradient(class_means))[labels]
    mean_lengths = _compute_lengths(means)
    along = jnp.sum(student * means, axis=1) / jnp.where(mean_lengths > 0, mean_lengths, 1.0)
    student_lengths, teacher_lengths = _compute_lengths(student), _compute_lengths(teacher)
    # `maximum` would split the gradient of a tie.
    longest = jnp.where(teacher_lengths > student_lengths, teacher_lengths, student_lengths)
    positive = longest > 0
    return 1.0 - jnp.where(positive, along / jnp.where(positive, longest, 1.0), 0.0)


def make_objective(*, dropout_rate: float = 0.5) -> Objective:
    """Makes the objective that turns the student's embedding to the teacher's class means and lengthens it.

    Where the models' widths differ, a projector with BatchNorm, dropout and a linear map stands between the
    student and this loss alone.

    Args:
      dropout_rate: Dropout rate of the projector between unequal widths, in [0, 1).

    Raises:
      UsageError: `dropout_rate` is out of range; or, from `init`, the class means are absent or have another
        shape.
    """
    if not 0.0 <= dropout_rate < 1.0:
        raise UsageError(f"kdpp.dropout_rate={dropout_rate} is not in [0, 1)")

    def init(key: jax.Array, info: TaskInfo) -> tuple[Tree, Tree]:
        wanted = (info.num_classes, info.teacher_width)
        if info.class_means is None:
            raise UsageError("kdpp needs the teacher's class means; see fairkd-class-means")
        if info.class_means.shape != wanted:
            raise UsageError(f"class means of shape {info.class_means.shape} do not fit; wanted {wanted}")
        state: dict[str, Tree] = {"class_means": jnp.asarray(info.class_means, jnp.float32)}
        if info.student_width == info.teacher_width:
            return {}, state
        projector = Projector(info.teacher_width, dropout_rate)
        keys = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        variables = projector.init(keys, jnp.zeros((1, info.student_width)), jnp.ones(1))
        return variables["params"], state | {"batch_stats": variables["batch_stats"]}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        assert inputs.teacher is not None
        student, means = inputs.student.embedding, state["class_means"]
        if params:
            student, updates = Projector(means.shape[1], dropout_rate).apply(
                {"params": params, "batch_stats": state["batch_stats"]},
                promote_to_float32(student),
                inputs.batch["mask"] > 0,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(inputs.key, zlib.crc32(b"kdpp"))},
            )
            state = state | updates
        value = direction_norm_loss(student, inputs.teacher.embedding, means, inputs.batch["label"])
        return value, (state, {"student_norm": _sum_lengths(student, inputs.batch["mask"])})

    return Objective(init, loss, label="KD++", uses_teacher=True, uses_class_means=True, smallest_batch=2)


def _sum_lengths(embedding: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums the lengths of embeddings [B, E], and their weights, by a mask [B]."""
    lengths = _compute_lengths(promote_to_float32(jax.lax.stop_gradient(embedding)))
    return jnp.sum(jnp.where(mask > 0, lengths * mask, 0.0)), jnp.sum(mask)
