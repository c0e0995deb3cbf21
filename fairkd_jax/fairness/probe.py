"""Leakage: how well the protected group can be read from frozen features, beyond the label.

An adversary at chance during training does not prove that the group is absent. A new classifier on the same
features may still read the group (Elazar & Goldberg 2018, arXiv 1808.06640). Therefore probes are fitted
after training, and compared with a predictor that knows the label alone. In the same way, Wang et al. (2019,
arXiv 1811.08489) compare the leakage of a model with the leakage of its data.

Probes get the label as an input too. Their advantage is the information about the group within a class, which
equalized odds forbids.
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
from fairkd_jax.fairness.inference import find_comparable_cells

# One restart each: low rates can stop in time with many features, high rates converge with few features.
LEARNING_RATES = np.array([1e-4, 4e-4, 1.5e-3, 6e-3, 2.5e-2])
STEPS, VALIDATE_EVERY, BATCH = 1000, 50, 256
WEIGHT_DECAY = 1e-3
_NORMAL_95 = 1.959964
# A cell with fewer test images is left out: a single image would count as a large share of its class.
TEST_COUNT = 10
_CONSTANT = 1e-6  # a column whose deviation is a smaller share of its mean contains rounding errors alone


class Sample(NamedTuple):
    """Images as a frozen model sees them.

    Attributes:
      features: Features of the images, float [N, D].
      label: Classes of the images, int [N] in [0, C).
      group: Groups of the images, int [N] in [0, G); images of unknown group (-1) are left out.
    """

    features: np.ndarray
    label: np.ndarray
    group: np.ndarray


class _ProbeData(NamedTuple):
    """Inputs float32 [n, D + C]; label and group int32 [n]; weight [n] with the sum 1."""

    inputs: Any
    label: Any
    group: Any
    weight: Any


class _ProbeNetwork(nn.Module):
    """MLP from inputs [B, D + C] to logits of the groups [B, G]; all logits are 0 at initialisation."""

    hidden: tuple[int, ...]
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"hidden{i}")(x))
        return nn.Dense(self.groups, kernel_init=nn.initializers.zeros, name="output")(x)


def probe_features(
    train: Sample,
    validation: Sample,
    test: Sample,
    *,
    num_groups: int,
    num_classes: int,
    hidden: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Fits probes of the group, chooses the best probe on validation, and measures its leakage on test.

    Within each class all groups have the same total weight, in each split by its own counts (see
    `compute_cell_weights`). From the label alone, the best prediction is then a uniform guess among the G_y
    groups that the class has in training. Its cross-entropy is ln G_y nats. Probes start as this guess, which
    is also the candidate at step 0. The restart and the step with the smallest validation cross-entropy are
    kept. The advantage is therefore about 0 where nothing can be read.

    Args:
      train: Images to fit the probes on.
      validation: Images to choose the restart and the step on.
      test: Images to measure the leakage on.
      num_groups: Number of groups, G.
      num_classes: Number of classes, C.
      hidden: Widths of the probe's hidden layers; empty for a linear probe.
      seed: Seed of initial values and minibatches.

    Returns:
      The result of `compute_leakage` on the test images; the chosen `restart` and `step`; `left_out`, the
      cells [group, class] with fewer than `TEST_COUNT` test images. The interval is NaN where no probe is
      better than the label alone. All numbers are NaN or None without groups to compare. `reason` says why.
    """
    samples = {"training": train, "validation": validation, "test": test}
    counts = {split: _count_cells(sample, num_groups, num_classes) for split, sample in samples.items()}
    weights = {
        split: compute_cell_weights(own, counts["training"], TEST_COUNT if split == "test" else 1)
        for split, own in counts.items()
    }
    small = np.argwhere((counts["test"] > 0) & (weights["test"] == 0)).tolist()
    for split, cells in weights.items():
        if not cells.any():
            also = {"training": "", "test": f" and in test ({TEST_COUNT} each)"}.get(
                split, f" and in {split}"
            )
            return _make_empty_result(f"no class has images of two known groups in training{also}", small)
        samples[split] = _select_weighted_images(samples[split], cells)
        if not np.isfinite(samples[split].features).all():
            return _make_empty_result(f"the features of {split} images are not finite", small)
    rows = _make_probe_data(samples, weights, num_classes)
    present = counts["training"].T > 0
    # Images are drawn by weight: as a factor in the loss, a large weight would cause a large step.
    chosen = np.random.default_rng(seed).choice(len(rows[0].weight), (STEPS, BATCH), p=rows[0].weight)
    batches = chosen.astype(np.int32).reshape(-1, VALIDATE_EVERY, BATCH)
    fitted = _fit_probe(jax.random.key(seed), batches, *rows, present, hidden=tuple(hidden))
    logits, restart, step = jax.device_get(fitted)
    found = compute_leakage(logits, *rows[2][1:], present) | {"restart": int(restart), "step": int(step)}
    if not step:
        found |= {"standard_error": float("nan"), "interval": [float("nan")] * 2}
        found["reason"] = "no probe was better than the label alone"
    return found | {"left_out": small}


def compute_cell_weights(counts: ArrayLike, training_counts: ArrayLike, min_count: int = 1) -> Floats:
    """Computes image weights that make the groups of each class equally frequent: n_y / (G n_yg).

    Args:
      counts: Images of the split that gets the weights, int [G, C].
      training_counts: Training images, int [G, C].
      min_count: Smallest number of images in a cell (a group and a class) of this split.

    Returns:
      Weight of an image in each cell, float64 [G, C]. The weight is 0 in a cell without enough images in this
      split or without training images. A class with fewer than two remaining cells has the weight 0 too. n_y
      counts the images with a weight above 0.
    """
    enough = np.asarray(counts) >= min_count
    enters = find_comparable_cells(np.where(enough, np.minimum(counts, training_counts), 0), 1)
    entering = np.where(enters, counts, 0.0)
    per_class = np.broadcast_to(entering.sum(axis=0, keepdims=True), entering.shape)
    return np.divide(per_class, len(entering) * entering, out=np.zeros_like(entering), where=enters)


def compute_leakage(
    logits: np.ndarray, label: np.ndarray, group: np.ndarray, weight: Floats, present: NDArray[np.bool_]
) -> dict[str, Any]:
    """Computes the leakage: the information about the group in a probe's predictions, beyond the label.

    Args:
      logits: Logits of the groups, float [n, G].
      label: Classes, int [n].
      group: Groups, int [n]; each is a group that the class has in training.
      weight: Weights of the images, float64 [n].
      present: Groups that each class has in training, bool [C, G]; no other groups are predicted.

    Returns:
      `advantage`, the cross-entropy of the label alone minus that of the probe, in nats;
      `standard_error` and `interval` (95 %), normal, over images, for the fitted probe;
      `accuracy` and `label_accuracy`, of the probe and of the label alone, balanced within each class;
      `num_images`.
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


def _make_empty_result(reason: str, left_out: list[list[int]]) -> dict[str, Any]:
    numbers: dict[str, Any] = dict.fromkeys(
        ("advantage", "standard_error", "accuracy", "label_accuracy"), float("nan")
    )
    numbers |= {"interval": [float("nan")] * 2, "num_images": 0, "restart": None, "step": None}
    return numbers | {"reason": reason, "left_out": left_out}


def _count_cells(sample: Sample, num_groups: int, num_classes: int) -> NDArray[np.int64]:
    counts, known = np.zeros((num_groups, num_classes), np.int64), sample.group >= 0
    np.add.at(counts, (sample.group[known], sample.label[known]), 1)
    return counts


def _select_weighted_images(sample: Sample, cells: Floats) -> Sample:
    """Selects the images of known group whose cell has a weight above 0."""
    enters = (sample.group >= 0) & (cells[sample.group, sample.label] > 0)
    return Sample(*(part[enters] for part in sample))


def _make_probe_data(
    samples: dict[str, Sample], weights: dict[str, Floats], num_classes: int
) -> list[_ProbeData]:
    """Standardises all splits by the training images; columns that are constant in training become 0."""
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
        rows.append(_ProbeData(*columns, weight / weight.sum()))
    return rows


@functools.partial(jax.jit, static_argnames="hidden")
def _fit_probe(
    key: jax.Array,
    batches: jax.Array,
    train: _ProbeData,
    validation: _ProbeData,
    test: _ProbeData,
    present: jax.Array,
    *,
    hidden: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fits all restarts in parallel, and applies the best step to the test images.

    Args:
      key: Key of the initial values.
      batches: Rows of `train`, int32 [validations, steps between two validations, B].
      train: Images to fit the restarts on.
      validation: Images to choose the restart and the step on.
      test: Images to apply the chosen probe to.
      present: Groups that each class has in training, bool [C, G].
      hidden: Widths of the hidden layers.

    Returns:
      Logits of the test images [n, G], the number of the restart, and the number of the step.
    """
    network = _ProbeNetwork(hidden, present.shape[1])

    def compute_nats(params: Any, rows: _ProbeData) -> jax.Array:
        outputs = jnp.asarray(network.apply(params, rows.inputs))
        logits = jnp.where(present[rows.label], outputs, -jnp.inf)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), rows.group[:, None], axis=1)[:, 0]

    def run_restart(key: jax.Array, learning_rate: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, STEPS), weight_decay=WEIGHT_DECAY)

        def run_step(carry: Any, indices: jax.Array) -> tuple[Any, None]:
            params, state = carry
            batch = jax.tree.map(lambda part: part[indices], train)
            gradient = jax.grad(lambda params: jnp.mean(compute_nats(params, batch)))(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        def run_steps_and_validate(carry: Any, numbered: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            current, best = carry
            current, _ = jax.lax.scan(run_step, current, numbered[1])
            loss = jnp.sum(validation.weight * compute_nats(current[0], validation))
            candidate = (loss, numbered[0], current[0])
            best = jax.tree.map(lambda new, old: jnp.where(loss < best[0], new, old), candidate, best)
            return (current, best), None

        params = network.init(key, train.inputs[:1])
        loss = jnp.sum(validation.weight * compute_nats(params, validation))
        start = ((params, optimizer.init(params)), (loss, jnp.int32(0), params))
        numbered = (VALIDATE_EVERY * jnp.arange(1, len(batches) + 1), batches)
        return jax.lax.scan(run_steps_and_validate, start, numbered)[0][1]

    rates = jnp.asarray(LEARNING_RATES, jnp.float32)
    loss, step_number, params = jax.vmap(run_restart)(jax.random.split(key, len(rates)), rates)
    best = jnp.argmin(loss)
    chosen = jax.tree.map(lambda part: part[best], params)
    return jnp.asarray(network.apply(chosen, test.inputs)), best, step_number[best]
