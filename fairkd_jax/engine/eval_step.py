"""The scoring of a split: the counts from which all measures come, and each image's probabilities."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.data.augment import preprocess
from fairkd_jax.engine.sharding import make_batch_sharding, make_replicated_sharding, to_global
from fairkd_jax.fairness import group_counts
from fairkd_jax.models import Classifier
from fairkd_jax.objectives.cross_entropy import softmax_cross_entropy
from fairkd_jax.types import Batch, Tree


class BatchScores(NamedTuple):
    """The scores of a batch.

    Attributes:
      counts: Number of images by group, label and prediction, int32 [G+1, C, C]; images of unknown group are
        in the last row.
      cross_entropy: Sum of the cross-entropy over the batch, in nats, a scalar.
      prediction: Predictions, int32 [B].
      probabilities: Probabilities, float32 [B, C].
      features: "embedding", float32 [B, D], and "logits", float32 [B, C]; empty unless requested.
    """

    counts: jax.Array
    cross_entropy: jax.Array
    prediction: jax.Array
    probabilities: jax.Array
    features: dict[str, jax.Array]


class Scores(NamedTuple):
    """The scores of a split, whose N images are in the order of the split.

    Attributes:
      counts: Number of images by group, label and prediction, int64 [G+1, C, C].
      cross_entropy: Sum of the cross-entropy over the split, in nats.
      prediction: Predictions, int32 [N].
      probabilities: Probabilities, float32 [N, C].
      features: "embedding", float32 [N, D], and "logits", float32 [N, C]; empty unless requested.
    """

    counts: np.ndarray
    cross_entropy: float
    prediction: np.ndarray
    probabilities: np.ndarray
    features: dict[str, np.ndarray]


EvalStep = Callable[[Tree, Batch], BatchScores]


def count_batch(batch: Batch, logits: jax.Array, num_groups: int) -> jax.Array:
    """Counts a batch by group, label and prediction, int32 [G+1, C, C]; see `group_counts`."""
    return group_counts(
        batch["group"],
        batch["label"],
        jnp.argmax(logits, axis=1),
        batch["mask"],
        num_groups=num_groups,
        num_classes=logits.shape[1],
    )


def make_eval_step(
    model: Classifier, *, image_size: int, num_groups: int, with_features: bool = False
) -> EvalStep:
    """Makes the pure function that scores a batch; see `BatchScores`.

    Args:
      model: The model, in inference form.
      image_size: Side of the model's images, in pixels.
      num_groups: Number G of groups.
      with_features: Whether the scores have the features.

    Returns:
      Function `eval_step(variables, batch) -> scores`, not yet compiled.
    """

    def eval_step(variables: Tree, batch: Batch) -> BatchScores:
        outputs: Any = model.apply(variables, preprocess(batch["image"], size=image_size))
        logits = outputs.logits
        prediction = jnp.argmax(logits, axis=1).astype(jnp.int32)
        counts = count_batch(batch, logits, num_groups)
        nats = softmax_cross_entropy(logits, batch["label"])
        total = jnp.sum(jnp.where(batch["mask"] > 0, nats, 0.0))
        features = {"embedding": outputs.embedding, "logits": logits} if with_features else {}
        return BatchScores(counts, total, prediction, jax.nn.softmax(logits), features)

    return eval_step


def compile_eval_step(
    eval_step: EvalStep, mesh: jax.sharding.Mesh, variables_sharding: jax.sharding.Sharding | None = None
) -> EvalStep:
    """Compiles the scoring of a batch over a mesh.

    The devices share the batch, and every device gets the whole result.

    Args:
      eval_step: The scoring, see `make_eval_step`.
      mesh: The devices.
      variables_sharding: Sharding of the variables; by default a copy on every device.
    """
    everywhere = make_replicated_sharding(mesh)
    shardings = (variables_sharding or everywhere, make_batch_sharding(mesh))
    return jax.jit(eval_step, in_shardings=shardings, out_shardings=everywhere)


def evaluate(
    eval_step: EvalStep, variables: Tree, batches: Iterable[Mapping[str, np.ndarray]], mesh: jax.sharding.Mesh
) -> Scores:
    """Scores a split.

    Args:
      eval_step: The scoring of a batch, compiled over the mesh.
      variables: Variables of the model, on the mesh.
      batches: This process's parts of the global batches; the last batch is padded with mask 0.
      mesh: The devices.
    """
    (scores,) = evaluate_members(eval_step, variables, batches, mesh, 0)
    return scores


def evaluate_members(
    eval_step: EvalStep,
    variables: Tree,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: jax.sharding.Mesh,
    members: int,
) -> list[Scores]:
    """Scores each member of a population on a split.

    Args:
      eval_step: The scoring of a batch by all members, compiled over the mesh.
      variables: Variables of the members, on the mesh, with a leading axis over the members.
      batches: This process's parts of the global batches; the last batch is padded with mask 0.
      mesh: The devices.
      members: Number of members; 0 for a single student, whose arrays have no axis over members.

    Returns:
      The scores of each member, or of the single student.
    """
    sums = [_ScoreSum() for _ in range(max(1, members))]
    for scores, mask in _score_batches(eval_step, variables, batches, mesh):
        for i, own in enumerate(sums):
            own.add(jax.tree.map(lambda x, i=i: x[i], scores) if members else scores, mask)
    return [own.join() for own in sums]


def _score_batches(
    eval_step: EvalStep, variables: Tree, batches: Iterable[Mapping[str, np.ndarray]], mesh: jax.sharding.Mesh
) -> Iterator[tuple[BatchScores, np.ndarray]]:
    """Yields the scores and the mask of each batch, on the host."""
    pending = None
    for batch in batches:
        arrays = to_global(batch, make_batch_sharding(mesh))
        mask = jax.device_put(arrays["mask"], make_replicated_sharding(mesh))
        scores = eval_step(variables, arrays)
        # The host reads a batch after the next one is dispatched, so that the device always has work.
        if pending:
            yield jax.device_get(pending)
        pending = (scores, mask)
    if pending:
        yield jax.device_get(pending)


class _ScoreSum:
    """The scores of the batches so far; one array holds the counts of all of them."""

    def __init__(self) -> None:
        """Starts empty."""
        self._counts: np.ndarray | None = None
        self._cross_entropy: list[Any] = []
        self._images: list[Tree] = []

    def add(self, scores: BatchScores, mask: np.ndarray) -> None:
        """Adds the scores of a batch, on the host, with the mask of its rows."""
        if self._counts is None:
            self._counts = np.zeros(scores.counts.shape, np.int64)
        self._counts += scores.counts
        self._cross_entropy.append(scores.cross_entropy)
        images = (scores.prediction, scores.probabilities, scores.features)
        self._images.append(_remove_padding(images, mask))

    def join(self) -> Scores:
        """Returns the scores of all images."""
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *self._images)
        assert self._counts is not None
        return Scores(self._counts, float(np.sum(self._cross_entropy)), *joined)


def _remove_padding(arrays: Tree, mask: np.ndarray) -> Tree:
    """Removes the rows whose mask is 0."""
    return jax.tree.map(lambda array: array[mask > 0], arrays)
