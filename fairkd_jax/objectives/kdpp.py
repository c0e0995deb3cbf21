"""KD++, distillation with the norm and direction of the embedding (Wang et al. 2023, arXiv 2305.17007).

The student's embedding is to point to the teacher's mean of its class, and to be at least as long as the
teacher's (section 3.3). Used beside cross-entropy and CKD.
"""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives.base import Inputs, Metrics, Objective, Spec, at_least_float32
from fairkd_jax.ops.geometry import safe_sqrt
from fairkd_jax.types import Tree


class Projector(nn.Module):
    """BatchNorm, dropout and a linear map: student embeddings [B, D] -> [B, width], as the authors' `fc`.

    Attributes:
      width: of the teacher's embedding.
      dropout_rate: of the dropout.
    """

    width: int
    dropout_rate: float

    @nn.compact
    def __call__(self, embedding: jax.Array, mask: jax.Array) -> jax.Array:
        norm = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, name="norm")
        x = norm(embedding, mask=mask[:, None])
        x = nn.Dropout(self.dropout_rate, deterministic=False)(x)
        return nn.Dense(self.width, name="linear")(x)


def _lengths(emb_bd: jax.Array) -> jax.Array:
    """[B], with gradient 0 at 0."""
    return safe_sqrt(jnp.sum(emb_bd**2, axis=1))


def direction_norm_loss(
    student_embedding: jax.Array, teacher_embedding: jax.Array, class_means: jax.Array, labels: jax.Array
) -> jax.Array:
    """`1 - <s, m_y / |m_y|> / max(|s|, |t|)` (equation 7).

    No cosine: while the student's embedding is shorter than the teacher's, it also gains by growing. At equal
    lengths the student's is the larger one to the gradient, as in the authors' code.

    Args:
      student_embedding: float [B, E], projected where the models' widths differ.
      teacher_embedding: float [B, E]; no gradient reaches it.
      class_means: float [C, E], the teacher's mean embedding of each class; no gradient reaches it.
      labels: int32 [B].

    Returns:
      [B], at least float32, in [0, 2]; 1, with gradient 0, where both embeddings are 0.

    Raises:
      UsageError: the widths do not fit together.
    """
    widths = (student_embedding.shape[1], teacher_embedding.shape[1], class_means.shape[1])
    if len(set(widths)) > 1:
        raise UsageError(
            f"KD++ compares embeddings of one width, got student {widths[0]}, teacher {widths[1]} and class"
            f" means {widths[2]}"
        )
    student = at_least_float32(student_embedding)
    teacher = at_least_float32(jax.lax.stop_gradient(teacher_embedding))
    means = at_least_float32(jax.lax.stop_gradient(class_means))[labels]
    mean_lengths = _lengths(means)
    along = jnp.sum(student * means, axis=1) / jnp.where(mean_lengths > 0, mean_lengths, 1.0)
    student_lengths, teacher_lengths = _lengths(student), _lengths(teacher)
    # Not `maximum`, which would split the gradient of a tie.
    longest = jnp.where(teacher_lengths > student_lengths, teacher_lengths, student_lengths)
    positive = longest > 0
    return 1.0 - jnp.where(positive, along / jnp.where(positive, longest, 1.0), 0.0)


def objective(*, dropout_rate: float = 0.5) -> Objective:
    """Turning the student's embedding to the teacher's class means, and lengthening it.

    Where the models' widths differ, a projector with BatchNorm, dropout and a linear map stands between the
    student and this loss alone.

    Args:
      dropout_rate: of the projector, in [0, 1).

    Raises:
      UsageError: dropout_rate is out of range; from `init`, the class means are absent or do not fit.
    """
    if not 0.0 <= dropout_rate < 1.0:
        raise UsageError(f"kdpp.dropout_rate={dropout_rate} is not in [0, 1)")

    def init(key: jax.Array, spec: Spec) -> tuple[Tree, Tree]:
        wanted = (spec.num_classes, spec.teacher_width)
        if spec.class_means is None:
            raise UsageError("kdpp needs the teacher's class means; see scripts/class_means.py")
        if spec.class_means.shape != wanted:
            raise UsageError(f"class means of shape {spec.class_means.shape} do not fit; wanted {wanted}")
        state: dict[str, Tree] = {"class_means": jnp.asarray(spec.class_means, jnp.float32)}
        if spec.student_width == spec.teacher_width:
            return {}, state
        projector = Projector(spec.teacher_width, dropout_rate)
        keys = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        variables = projector.init(keys, jnp.zeros((1, spec.student_width)), jnp.ones(1))
        return variables["params"], state | {"batch_stats": variables["batch_stats"]}

    def loss(params: Tree, state: Tree, inputs: Inputs) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        assert inputs.teacher is not None
        student, means = inputs.student.embedding, state["class_means"]
        if params:
            student, updates = Projector(means.shape[1], dropout_rate).apply(
                {"params": params, "batch_stats": state["batch_stats"]},
                at_least_float32(student),
                inputs.batch["mask"] > 0,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(inputs.key, zlib.crc32(b"kdpp"))},
            )
            state = state | updates
        value = direction_norm_loss(student, inputs.teacher.embedding, means, inputs.batch["label"])
        return value, (state, {"student_norm": _mean_length(student, inputs.batch["mask"])})

    return Objective(init, loss, uses_teacher=True, uses_class_means=True, smallest_batch=2)


def _mean_length(embedding: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    lengths = _lengths(at_least_float32(jax.lax.stop_gradient(embedding)))
    return jnp.sum(jnp.where(mask > 0, lengths * mask, 0.0)), jnp.sum(mask)
