"""Running a model over a split: the counts that all measures come from, and each image's probabilities."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.data.augment import preprocess
from fairkd_jax.fairness import group_counts
from fairkd_jax.objectives.cross_entropy import softmax_cross_entropy
from fairkd_jax.training.sharding import over_batch, replicated, to_global
from fairkd_jax.types import Batch, Tree


class BatchScores(NamedTuple):
    """What one batch gives.

    Attributes:
      counts: int32 [G+1, C, C], group by label by prediction; the last row is of unknown group.
      cross_entropy: the sum over the batch, in nats.
      prediction: int32 [B].
      probabilities: float32 [B, C].
      features: float32 "embedding" [B, D] and "logits" [B, C], where they are asked for.
    """

    counts: jax.Array
    cross_entropy: jax.Array
    prediction: jax.Array
    probabilities: jax.Array
    features: dict[str, jax.Array]


class Scores(NamedTuple):
    """What a split gives: `BatchScores` added up; predictions, probabilities and features in its order."""

    counts: np.ndarray
    cross_entropy: float
    prediction: np.ndarray
    probabilities: np.ndarray
    features: dict[str, np.ndarray]


EvalStep = Callable[[Tree, Batch], BatchScores]


def batch_counts(batch: Batch, logits: jax.Array, num_groups: int) -> jax.Array:
    """A batch by group, label and prediction, int32 [G+1, C, C]; see `group_counts`."""
    return group_counts(
        batch["group"],
        batch["label"],
        jnp.argmax(logits, axis=1),
        batch["mask"],
        num_groups=num_groups,
        num_classes=logits.shape[1],
    )


def make_eval_step(
    model: nn.Module, *, image_size: int, num_groups: int, with_features: bool = False
) -> EvalStep:
    """Makes the pure function that scores a batch; see `BatchScores`."""

    def eval_step(variables: Tree, batch: Batch) -> BatchScores:
        outputs: Any = model.apply(variables, preprocess(batch["image"], size=image_size))
        logits = outputs.logits
        prediction = jnp.argmax(logits, axis=1).astype(jnp.int32)
        counts = batch_counts(batch, logits, num_groups)
        nats = softmax_cross_entropy(logits, batch["label"])
        total = jnp.sum(jnp.where(batch["mask"] > 0, nats, 0.0))
        features = {"embedding": outputs.embedding, "logits": logits} if with_features else {}
        return BatchScores(counts, total, prediction, jax.nn.softmax(logits), features)

    return eval_step


def compile_eval_step(
    eval_step: EvalStep, mesh: jax.sharding.Mesh, of_variables: jax.sharding.Sharding | None = None
) -> EvalStep:
    """Compiles it over a mesh: the batch is split, the result is whole on every device.

    The variables are so too, unless it is said where they lie.
    """
    everywhere = replicated(mesh)
    shardings = (of_variables or everywhere, over_batch(mesh))
    return jax.jit(eval_step, in_shardings=shardings, out_shardings=everywhere)


def evaluate(
    eval_step: EvalStep, variables: Tree, batches: Iterable[Mapping[str, np.ndarray]], mesh: jax.sharding.Mesh
) -> Scores:
    """Scores a split.

    Args:
      eval_step: compiled over the mesh.
      variables: the model's, on the mesh.
      batches: this process's parts of the global batches, the last one padded with mask 0.
      mesh: the devices.
    """
    return _joined(list(_scored(eval_step, variables, batches, mesh)))


def evaluate_members(
    eval_step: EvalStep,
    variables: Tree,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: jax.sharding.Mesh,
    members: int,
) -> list[Scores]:
    """Scores each student of a population on a split; as `evaluate`, with an axis for them in front.

    Args:
      eval_step: compiled over the mesh, of all students at once.
      variables: the students', on the mesh.
      batches: as of `evaluate`.
      mesh: the devices.
      members: how many; 0 for a lone student, whose arrays have no axis for that.
    """
    results = list(_scored(eval_step, variables, batches, mesh))
    if not members:
        return [_joined(results)]
    return [
        _joined([(jax.tree.map(lambda x, i=i: x[i], scores), mask) for scores, mask in results])
        for i in range(members)
    ]


def _scored(
    eval_step: EvalStep, variables: Tree, batches: Iterable[Mapping[str, np.ndarray]], mesh: jax.sharding.Mesh
) -> Iterator[tuple[BatchScores, np.ndarray]]:
    """The scores and the mask of each batch, on the host."""
    pending = None
    for batch in batches:
        arrays = to_global(batch, over_batch(mesh))
        mask = jax.device_put(arrays["mask"], replicated(mesh))
        scores = eval_step(variables, arrays)
        # One batch late: the device has the next one to work on while this one is read.
        if pending:
            yield jax.device_get(pending)
        pending = (scores, mask)
    if pending:
        yield jax.device_get(pending)


def _joined(results: list[tuple[BatchScores, np.ndarray]]) -> Scores:
    images = [_without_padding((r.prediction, r.probabilities, r.features), mask) for r, mask in results]
    prediction, probabilities, features = jax.tree.map(lambda *parts: np.concatenate(parts), *images)
    return Scores(
        counts=np.stack([r.counts for r, _ in results]).sum(axis=0, dtype=np.int64),
        cross_entropy=float(np.sum([r.cross_entropy for r, _ in results])),
        prediction=prediction,
        probabilities=probabilities,
        features=features,
    )


def _without_padding(arrays: Tree, mask: np.ndarray) -> Tree:
    return jax.tree.map(lambda array: array[mask > 0], arrays)
