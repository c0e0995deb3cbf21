"""CTKD: the temperature, its reversed gradient, and how it moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Inputs, TaskInfo, create_objective
from fairkd_jax.objectives.ckd import kl_divergence
from fairkd_jax.objectives.ctkd import reversal_strength, temperature
from fairkd_jax.types import Outputs
from tests.compared import compiled_pull

KL = jax.jit(kl_divergence)
CLASSES, BATCH = 5, 8
SPEC = TaskInfo(CLASSES, 2, 3, 3, np.ones((2, CLASSES)))


def make_inputs(epoch=0.0, seed=0):
    s, t = np.float32(np.random.default_rng(seed).normal(size=(2, BATCH, CLASSES)))
    embedding = jnp.zeros((BATCH, 3))
    batch = {"label": jnp.zeros(BATCH, jnp.int32), "mask": jnp.ones(BATCH)}
    zero = jnp.float32(0.0)
    return Inputs(
        Outputs(jnp.asarray(s), embedding),
        Outputs(jnp.asarray(t), embedding),
        batch,
        progress=zero,
        epoch=jnp.float32(epoch),
        strength=zero,
        key=jax.random.key(0),
    )


def test_the_temperature_and_its_reversed_gradient():
    assert float(temperature(jnp.float32(1.0), 1.0)) == pytest.approx(1 + 20 / (1 + np.exp(-1)), rel=1e-6)
    assert float(temperature(jnp.float32(1.0), 1.0)) == pytest.approx(15.6212, abs=1e-4)
    p = jnp.float32([-3.0, 0.0, 4.0])
    sigmoid = 1 / (1 + np.exp(-np.float64(p)))
    np.testing.assert_allclose(temperature(p, 0.3, start=2.0, range=6.0), 2 + 6 * sigmoid, rtol=1e-6)
    slopes = jax.vmap(jax.grad(lambda p: temperature(p, 0.3, start=2.0, range=6.0)))(p)
    np.testing.assert_allclose(slopes, -0.3 * 6 * sigmoid * (1 - sigmoid), rtol=1e-5)
    assert temperature(jnp.bfloat16(1.0), 1.0).dtype == jnp.float32


def test_the_strength_rises_along_a_cosine():
    for epoch in (1.0, 3.5, 10.0, 40.0):
        expected = (1 - np.cos(np.pi * min(epoch, 10) / 10)) / 2
        assert float(reversal_strength(epoch, 10)) == pytest.approx(expected, rel=1e-6)
    traces = []

    @jax.jit
    def traced(epoch):
        traces.append(epoch)
        return reversal_strength(epoch, 5.0)

    assert [round(float(traced(e)), 6) for e in (2.5, 5.0)] == [0.5, 1.0]
    assert len(traces) == 1


def test_the_global_variant_is_ckd_with_a_reversed_temperature():
    objective = create_objective("ctkd")
    params, state = objective.init(jax.random.key(0), SPEC)
    inputs = make_inputs(epoch=3.0)
    found = compiled_pull(objective, params, state, inputs)
    s, t = inputs.student.logits, inputs.teacher.logits
    T0 = 1 + 20 / (1 + np.exp(-1))
    with jax.enable_x64(True):
        loss = lambda s, T: KL(s, jnp.float64(t), T).mean()  # noqa: E731
        value, (slope, by_temperature) = jax.value_and_grad(loss, (0, 1))(jnp.float64(s), jnp.float64(T0))
        value, slope, by_temperature = float(value), np.asarray(slope), float(by_temperature)
    assert float(found.value) == pytest.approx(value, rel=2e-5)
    assert np.abs(found.cotangent.logits - slope).max() < 2e-5 * np.abs(slope).max()
    # The objective counts epochs from 0, the authors' ramp from 1.
    strength = (1 - np.cos(np.pi * 4 / 10)) / 2
    sigmoid = 1 / (1 + np.exp(-1))
    expected = -strength * by_temperature * 20 * sigmoid * (1 - sigmoid)
    assert float(found.gradient["temperature"]) == pytest.approx(expected, rel=1e-3)
    total, weight = found.metrics["temperature"]
    assert float(total / weight) == pytest.approx(T0, rel=1e-6)
    assert float(found.metrics["strength"][0]) == pytest.approx(strength, rel=1e-6)


def test_the_instance_variant_starts_like_the_global_one_and_reaches_no_model():
    objective = create_objective("ctkd", variant="instance", hidden=(7,))
    params, state = objective.init(jax.random.key(0), SPEC)
    inputs = make_inputs(epoch=20.0)
    first = compiled_pull(objective, params, state, inputs)
    alone = compiled_pull(
        create_objective("ctkd"), *create_objective("ctkd").init(jax.random.key(0), SPEC), inputs
    )
    np.testing.assert_allclose(first.value, alone.value, rtol=1e-6)
    # With any parameters: one temperature an image, a constant to the student's logits.
    keys = jax.random.split(jax.random.key(1), 4)
    leaves, structure = jax.tree.flatten(params)
    params = structure.unflatten(
        [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
    found = compiled_pull(objective, params, state, inputs)
    p = jax.tree.map(np.float64, params)
    s, t = (np.float64(o.logits) for o in (inputs.student, inputs.teacher))
    hidden = np.maximum(np.hstack([t, s]) @ p["hidden0"]["kernel"] + p["hidden0"]["bias"], 0)
    z = (hidden @ p["output"]["kernel"] + p["output"]["bias"])[:, 0]
    temperatures = 1 + 20 / (1 + np.exp(-z))
    assert np.ptp(temperatures) > 0.5
    fixed = jnp.float32(temperatures)
    slope = jax.grad(lambda s: KL(s, inputs.teacher.logits, fixed).mean())(inputs.student.logits)
    np.testing.assert_allclose(found.cotangent.logits, slope, atol=1e-5 * np.abs(slope).max())
    total, weight = found.metrics["temperature"]
    np.testing.assert_allclose(total / weight, temperatures.mean(), rtol=1e-5)

    def climbed(params):
        value, _ = objective.loss(params, state, inputs)
        return value.mean()

    def plain(params):
        """The same loss without the reversal, which at full strength only changes the sign."""
        hidden = jax.nn.relu(jnp.hstack([t, s]) @ params["hidden0"]["kernel"] + params["hidden0"]["bias"])
        z = (hidden @ params["output"]["kernel"] + params["output"]["bias"])[:, 0]
        return KL(jnp.asarray(s), t, 1 + 20 * jax.nn.sigmoid(z)).mean()

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.float64, params)
        with jax.numpy_rank_promotion("allow"):
            wanted = jax.grad(plain)(params)
            check_grads(plain, (params,), order=1, modes=["rev"])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, -b, atol=1e-4 * np.abs(b).max()),
            jax.tree.map(np.asarray, jax.grad(climbed)(params)),
            jax.tree.map(np.asarray, wanted),
        )


def trajectory(sign, steps):
    """Temperatures while logits and the parameter descend the loss, the parameter's gradient times -sign."""
    rng = np.random.default_rng(0)
    # Of a trained teacher: one class far above the others.
    teacher = jnp.float32(rng.normal(size=(64, 10)) + 8 * np.eye(10)[rng.integers(0, 10, 64)])

    def step(carry, i):
        student, p = carry
        strength = sign * reversal_strength(1.0 + i / 20, 10.0)
        loss = lambda s, p: KL(s, teacher, temperature(p, strength)).mean()  # noqa: E731
        slopes = jax.grad(loss, (0, 1))(student, p)
        moved = (student - 0.2 * slopes[0], p - 0.05 * slopes[1])
        return moved, temperature(p, strength)

    start = (jnp.float32(0.1 * rng.normal(size=(64, 10))), jnp.float32(1.0))
    _, temperatures = jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(steps, dtype=jnp.float32)))()
    return np.asarray(temperatures)


def test_the_temperature_falls_and_settles_and_climbs_without_the_reversal():
    against = trajectory(1.0, 600)
    assert against[0] == pytest.approx(15.6212, abs=1e-3)
    assert against.max() < 15.7
    assert against[-1] < 4
    assert np.ptp(against[-100:]) < 0.1 * (against[0] - against[-1])
    assert trajectory(-1.0, 3000)[-1] > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "both"}, "variant='both' is unknown; one of global, instance"),
        ({"start": 0.0}, r"ctkd\.start=0.0 must be above 0"),
        ({"range": -1.0}, r"ctkd\.range=-1.0"),
        ({"ramp_epochs": 0.0}, r"ctkd\.ramp_epochs=0.0"),
        ({"initial": float("inf")}, r"ctkd\.initial=inf"),
        ({"hidden": (0,)}, r"ctkd\.hidden"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        create_objective("ctkd", **options)
