"""How well the protected group can be read from frozen features, beyond what the label alone tells.

The adversary of a training cannot say: one at chance proves nothing, since a fresh classifier on the same
features may read the group all the same (Elazar & Goldberg 2018, arXiv 1808.06640). So probes are fitted
after training, and compared with a predictor that knows the label alone, as a model's leakage is with that of
its data (Wang et al. 2019, arXiv 1811.08489). Probes are told the label too: their advantage is what the
features say about the group within a class, which is what equalized odds forbids.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fairkd_jax.fairness.gaps import Floats
from fairkd_jax.fairness.inference import comparable

# A restart each: slow ones can stop in time where features are many, fast ones get far where they are few.
LEARNING_RATES = np.array([1e-4, 4e-4, 1.5e-3, 6e-3, 2.5e-2])
STEPS, VALIDATE_EVERY, BATCH = 1000, 50, 256
WEIGHT_DECAY = 1e-3
_NORMAL_95 = 1.959964
# Groups with fewer test images of a class are not reported on: one image would stand for half of its class.
TEST_COUNT = 10
_CONSTANT = 1e-6  # a column whose deviation is a smaller share of its mean than this holds rounding alone


class Sample(NamedTuple):
    """Images as a frozen model sees them.

    Attributes:
      features: float [N, D].
      label: int [N], the class, in [0, C).
      group: int [N], in [0, G); -1 = unknown, and left out.
    """

    features: np.ndarray
    label: np.ndarray
    group: np.ndarray


class _Rows(NamedTuple):
    """The images that enter: inputs float32 [n, D + C]; label, group int32 [n]; weight [n], summing to 1."""

    inputs: Any
    label: Any
    group: Any
    weight: Any


class _Reader(nn.Module):
    """From inputs [B, D + C] to the groups' logits [B, G], which are all 0 at the start."""

    hidden: tuple[int, ...]
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"hidden{i}")(x))
        return nn.Dense(self.groups, kernel_init=nn.initializers.zeros, name="output")(x)


def probe(
    train: Sample,
    validation: Sample,
    test: Sample,
    *,
    num_groups: int,
    num_classes: int,
    hidden: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Fits probes of the group, chooses one, and says what it reads.

    Within each class all groups weigh the same, in each split by its own counts (`cell_weights`): knowing the
    label alone, nothing is better than to guess among the G_y groups that the class has in training, which
    costs ln G_y nats. Probes start as that guess, and the restart and step of least validation cross-entropy
    are kept, the start included: where nothing can be read the advantage is about 0.

    Args:
      train: what the probes are fitted to.
      validation: what the restart and the step are chosen by.
      test: what is reported on.
      num_groups: G.
      num_classes: C.
      hidden: widths of the probe's hidden layers; none for a linear probe.
      seed: of initial values and minibatches.

    Returns:
      What `readability` says of the test images; the restart and the step that were chosen; and `left_out`,
      the groups of a class [group, class] with fewer than `TEST_COUNT` test images, which are not reported
      on. Where no probe was better than the label alone (step 0) there is no interval, and where nothing can
      be compared nothing at all: NaN or None, and the `reason` in words.
    """
    samples = {"training": train, "validation": validation, "test": test}
    counts = {split: _counts(sample, num_groups, num_classes) for split, sample in samples.items()}
    least = {"test": TEST_COUNT}
    weights = {
        split: cell_weights(own, counts["training"], least.get(split, 1)) for split, own in counts.items()
    }
    small = np.argwhere((counts["test"] > 0) & (weights["test"] == 0)).tolist()
    for split, cells in weights.items():
        if not cells.any():
            also = "" if split == "training" else f" and in {split}"
            enough = f" ({TEST_COUNT} each)" if split == "test" else ""
            return _nothing(f"no class has images of two known groups in training{also}{enough}", small)
        samples[split] = _entering(samples[split], cells)
        if not np.isfinite(samples[split].features).all():
            return _nothing(f"the features of {split} images are not finite", small)
    rows = _rows(samples, weights, num_classes)
    present = counts["training"].T > 0
    # Drawn by their weight, images need none in the loss, where that of a rare one would be a jolt.
    draws = np.random.default_rng(seed).choice(len(rows[0].weight), (STEPS, BATCH), p=rows[0].weight)
    batches = draws.astype(np.int32).reshape(-1, VALIDATE_EVERY, BATCH)
    fitted = _fit(jax.random.key(seed), batches, *rows, present, hidden=tuple(hidden))
    logits, restart, step = jax.device_get(fitted)
    found = readability(logits, *rows[2][1:], present) | {"restart": int(restart), "step": int(step)}
    if not step:
        found |= {"standard_error": float("nan"), "interval": [float("nan")] * 2}
        found["reason"] = "no probe was better than the label alone"
    return found | {"left_out": small}


def cell_weights(counts: ArrayLike, training_counts: ArrayLike, min_count: int = 1) -> Floats:
    """Weights under which the groups of each class are equally frequent: n_y / (G n_yg).

    Args:
      counts: int [G, C], images of the split that is weighed.
      training_counts: int [G, C].
      min_count: images that a cell must have here.

    Returns:
      float64 [G, C], of an image; 0 for a cell without enough images here, or any in training, and in classes
      with fewer than two other cells. n_y counts the images that enter.
    """
    enough = np.asarray(counts) >= min_count
    enters = comparable(np.where(enough, np.minimum(counts, training_counts), 0), 1)
    entering = np.where(enters, counts, 0.0)
    per_class = np.broadcast_to(entering.sum(axis=0, keepdims=True), entering.shape)
    return np.divide(per_class, len(entering) * entering, out=np.zeros_like(entering), where=enters)


def readability(
    logits: np.ndarray, label: np.ndarray, group: np.ndarray, weight: Floats, present: NDArray[np.bool_]
) -> dict[str, Any]:
    """What a probe's predictions say about the group, beyond the label.

    Args:
      logits: float [n, G], of the groups.
      label: int [n].
      group: int [n], one that the label's class has in training.
      weight: float64 [n], of the images.
      present: bool [C, G], the groups that each class has in training; no others are predicted.

    Returns:
      advantage, in nats: cross-entropy of the label alone minus the probe's; its standard_error and 95 %
      interval (normal, over images, with the probe as it is); accuracy and label_accuracy, of the probe and
      of the label alone, balanced within class; num_images.
    """
    allowed = present[label]
    predicted = special.log_softmax(np.where(allowed, logits.astype(np.float64), -np.inf), axis=1)
    own = np.take_along_axis(predicted, group[:, None], axis=1)[:, 0]
    # Groups that are equally likely share the image: a probe that guesses is as accurate as a guess.
    likeliest = predicted == predicted.max(axis=1, keepdims=True)
    hit = np.take_along_axis(likeliest, group[:, None], axis=1)[:, 0] / likeliest.sum(axis=1)
    choices = allowed.sum(axis=1)
    share = weight / weight.sum()
    gain = np.log(choices) + own
    advantage = float(share @ gain)
    error = float(np.sqrt(np.sum((share * (gain - advantage)) ** 2) * len(gain) / (len(gain) - 1)))
    return {
        "advantage": advantage,
        "standard_error": error,
        "interval": [advantage - _NORMAL_95 * error, advantage + _NORMAL_95 * error],
        "accuracy": float(share @ hit),
        "label_accuracy": float(share @ (1.0 / choices)),
        "num_images": len(gain),
    }


def _nothing(reason: str, left_out: list[list[int]]) -> dict[str, Any]:
    numbers: dict[str, Any] = dict.fromkeys(
        ("advantage", "standard_error", "accuracy", "label_accuracy"), float("nan")
    )
    numbers |= {"interval": [float("nan")] * 2, "num_images": 0, "restart": None, "step": None}
    return numbers | {"reason": reason, "left_out": left_out}


def _counts(sample: Sample, num_groups: int, num_classes: int) -> NDArray[np.int64]:
    counts, known = np.zeros((num_groups, num_classes), np.int64), sample.group >= 0
    np.add.at(counts, (sample.group[known], sample.label[known]), 1)
    return counts


def _entering(sample: Sample, cells: Floats) -> Sample:
    """The images that have a weight."""
    enters = (sample.group >= 0) & (cells[sample.group, sample.label] > 0)
    return Sample(*(part[enters] for part in sample))


def _rows(samples: dict[str, Sample], weights: dict[str, Floats], num_classes: int) -> list[_Rows]:
    """Standardised by the training images; columns that are constant there become 0."""
    mean, deviation = (
        f(samples["training"].features, 0, np.float64, keepdims=True) for f in (np.mean, np.std)
    )
    varies = deviation > _CONSTANT * np.abs(mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    rows = []
    for split, (features, label, group) in samples.items():
        inputs = np.concatenate([(features - mean) * scale, np.eye(num_classes)[label]], axis=1)
        weight = weights[split][group, label]
        columns = (inputs.astype(np.float32), label.astype(np.int32), group.astype(np.int32))
        rows.append(_Rows(*columns, weight / weight.sum()))
    return rows


@functools.partial(jax.jit, static_argnames="hidden")
def _fit(
    key: jax.Array,
    batches: jax.Array,
    train: _Rows,
    validation: _Rows,
    test: _Rows,
    present: jax.Array,
    *,
    hidden: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All restarts side by side: test logits [n, G] of the best one's best step, which one, and which step.

    `batches`, int32 [validations, steps between them, B], are rows of `train`; `present` is bool [C, G].
    """
    reader = _Reader(hidden, present.shape[1])

    def nats(params: Any, rows: _Rows) -> jax.Array:
        logits = jnp.where(present[rows.label], jnp.asarray(reader.apply(params, rows.inputs)), -jnp.inf)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), rows.group[:, None], axis=1)[:, 0]

    def restart(key: jax.Array, learning_rate: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        schedule = optax.cosine_decay_schedule(learning_rate, STEPS)
        optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)

        def step(carry: Any, indices: jax.Array) -> tuple[Any, None]:
            params, state = carry
            batch = jax.tree.map(lambda part: part[indices], train)
            gradient = jax.grad(lambda params: jnp.mean(nats(params, batch)))(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        def stretch(carry: Any, numbered: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            current, best = carry
            current, _ = jax.lax.scan(step, current, numbered[1])
            loss = jnp.sum(validation.weight * nats(current[0], validation))
            candidate = (loss, numbered[0], current[0])
            best = jax.tree.map(lambda new, old: jnp.where(loss < best[0], new, old), candidate, best)
            return (current, best), None

        params = reader.init(key, train.inputs[:1])
        start = (jnp.sum(validation.weight * nats(params, validation)), jnp.int32(0), params)
        numbered = (VALIDATE_EVERY * jnp.arange(1, len(batches) + 1), batches)
        return jax.lax.scan(stretch, ((params, optimizer.init(params)), start), numbered)[0][1]

    rates = jnp.asarray(LEARNING_RATES, jnp.float32)
    loss, step_number, params = jax.vmap(restart)(jax.random.split(key, len(rates)), rates)
    best = jnp.argmin(loss)
    chosen = jax.tree.map(lambda part: part[best], params)
    return jnp.asarray(reader.apply(chosen, test.inputs)), best, step_number[best]
