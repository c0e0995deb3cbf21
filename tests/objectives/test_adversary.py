"""The adversary: its weights, its ramp, its gradients and what it reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Inputs, TaskInfo, create_objective
from fairkd_jax.objectives.adversary import compute_balancing_weights, compute_label_only_losses, compute_ramp
from fairkd_jax.types import Outputs
from tests.compared import compiled_pull

COUNTS = np.array([[30, 5, 0], [10, 15, 40]])
WIDTH, CLASSES = 6, 3


def make_inputs(strength=1.0, progress=1.0, size=12, seed=0):
    rng = np.random.default_rng(seed)
    batch = {
        "label": rng.integers(0, 2, size),
        "group": rng.integers(-1, 2, size),
        "mask": (rng.uniform(size=size) > 0.2).astype(np.float32),
        "index": np.arange(size),
    }
    outputs = Outputs(rng.normal(size=(size, CLASSES)), rng.normal(size=(size, WIDTH)))
    cast = {k: jnp.asarray(v, jnp.float32 if k == "mask" else jnp.int32) for k, v in batch.items()}
    return Inputs(
        student=Outputs(*(jnp.float32(o) for o in outputs)),
        teacher=None,
        batch=cast,
        progress=jnp.float32(progress),
        epoch=jnp.float32(0),
        strength=jnp.float32(strength),
        key=jax.random.key(0),
    )


def info(counts=COUNTS):
    return TaskInfo(CLASSES, 2, WIDTH, 0, counts)


def test_weights_make_groups_equally_frequent_within_each_class():
    weights = compute_balancing_weights(COUNTS)
    np.testing.assert_allclose(weights[:, 0] * COUNTS[:, 0], 20)
    np.testing.assert_allclose(weights[:, 1] * COUNTS[:, 1], 10)
    np.testing.assert_allclose(weights[:, 2], [0, 40 / (2 * 40)])


def test_the_label_only_predictor_is_as_good_as_the_frequencies():
    balanced = compute_label_only_losses(COUNTS, compute_balancing_weights(COUNTS), by_label=True)
    np.testing.assert_allclose(balanced[:, :2], np.log(2))
    np.testing.assert_allclose(balanced[:, 2], 0)  # one group alone: nothing is left to predict
    plain = compute_label_only_losses(COUNTS, np.ones((2, 3)), by_label=True)
    np.testing.assert_allclose(plain[:, 0], -np.log([0.75, 0.25]))
    overall = compute_label_only_losses(COUNTS, np.ones((2, 3)), by_label=False)
    np.testing.assert_allclose(overall, np.broadcast_to(-np.log([[0.35], [0.65]]), (2, 3)))


def test_the_ramp_starts_after_the_warmup():
    progress = np.linspace(0, 1, 21)
    p = np.clip((progress - 0.2) / 0.8, 0, 1)
    np.testing.assert_allclose(
        compute_ramp(jnp.float32(progress), 0.2), 2 / (1 + np.exp(-10 * p)) - 1, atol=1e-6
    )


@pytest.mark.parametrize("condition", ["label", "none"])
@pytest.mark.parametrize("source", ["embedding", "logits"])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_loss_equals_the_reference(condition, source, balanced):
    objective = create_objective(
        "adversary", condition=condition, source=source, balanced=balanced, hidden=(5,)
    )
    params, state = objective.init(jax.random.key(0), info())
    inputs = make_inputs()
    loss, (_, metrics) = objective.loss(params, state, inputs)

    x = np.asarray(getattr(inputs.student, source), np.float64)
    label, group, mask = (np.asarray(inputs.batch[k]) for k in ("label", "group", "mask"))
    if condition == "label":
        x = np.concatenate([x, np.eye(CLASSES)[label]], axis=1)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    hidden = np.maximum(x @ p["hidden0"]["kernel"] + p["hidden0"]["bias"], 0)
    z = hidden @ p["output"]["kernel"] + p["output"]["bias"]
    nats = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), group]
    weights = compute_balancing_weights(COUNTS) if balanced else np.ones((2, 3))
    baseline = compute_label_only_losses(COUNTS, weights, condition == "label")
    w = np.where(group >= 0, weights[group, label] * mask, 0)
    np.testing.assert_allclose(loss, (w * nats).sum() / w.sum(), rtol=1e-5)
    gain, total = metrics["advantage"]
    np.testing.assert_allclose(gain / total, (w * (baseline[group, label] - nats)).sum() / w.sum(), rtol=1e-4)
    right, known = metrics["accuracy"]
    np.testing.assert_allclose(right / known, np.average(z.argmax(1) == group, weights=(group >= 0) * mask))


def test_lambda_scales_what_reaches_the_student_and_nothing_else():
    objective = create_objective("adversary", warmup=0.0)
    params, state = objective.init(jax.random.key(0), info())
    one, twenty, zero = (
        compiled_pull(objective, params, state, make_inputs(strength=s)) for s in (1.0, 20.0, 0.0)
    )
    jax.tree.map(np.testing.assert_array_equal, one.gradient, twenty.gradient)
    np.testing.assert_allclose(twenty.cotangent.embedding, 20 * one.cotangent.embedding, rtol=1e-5)
    assert not zero.cotangent.embedding.any()
    assert not one.cotangent.logits.any()

    def plain(embedding):
        inputs = make_inputs(strength=-1.0)  # reversed twice: the plain gradient
        return objective.loss(
            params, state, inputs._replace(student=Outputs(inputs.student.logits, embedding))
        )[0]

    expected = jax.grad(plain)(make_inputs().student.embedding)
    share = 2 / (1 + np.exp(-10)) - 1
    np.testing.assert_allclose(one.cotangent.embedding, -expected, rtol=1e-4, atol=1e-7)
    assert share == pytest.approx(float(objective.loss(params, state, make_inputs())[1][1]["strength"][0]))


def test_samples_of_unknown_group_or_padding_do_not_count():
    objective = create_objective("adversary")
    params, state = objective.init(jax.random.key(0), info())
    inputs = make_inputs()
    out = (inputs.batch["group"] < 0) | (inputs.batch["mask"] == 0)
    junk = jnp.where(out[:, None], 99.0, inputs.student.embedding)
    other = inputs._replace(student=Outputs(inputs.student.logits, junk))
    assert objective.loss(params, state, inputs)[0] == objective.loss(params, state, other)[0]
    nobody = inputs._replace(batch=inputs.batch | {"group": jnp.full(12, -1)})
    result = compiled_pull(objective, params, state, nobody)
    assert result.value == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.gradient, result.cotangent)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": "class"}, "condition='class' is unknown; one of label, none"),
        ({"source": "image"}, "source='image' is unknown"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"hidden": (64, 0)}, "widths of layers"),
        ({"hidden": ("a",)}, "widths of layers"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        create_objective("adversary", **options)


def test_one_known_group_is_refused():
    objective = create_objective("adversary")
    for counts in (np.array([[5, 5, 5], [0, 0, 0]]), np.zeros((0, 3), int)):
        with pytest.raises(UsageError, match="at least two known groups"):
            objective.init(jax.random.key(0), info(counts))
