"""KD++: the direction and norm loss, the projector and the class means it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Inputs, TaskInfo, create_objective
from fairkd_jax.objectives.kdpp import direction_norm_loss
from fairkd_jax.types import Outputs
from tests.compared import assert_close, compiled_pull

DIRECTION_NORM = jax.jit(direction_norm_loss)
CLASSES, WIDTH = 4, 6
COUNTS = np.ones((2, CLASSES))


def reference(s, t, means, labels):
    """One sample at a time; the larger norm as Python's `max` picks it, the first of a tie."""
    values = []
    for a, b, y in zip(s, t, labels, strict=True):
        centre = means[y] / np.sqrt((means[y] ** 2).sum())
        values.append(1 - (a @ centre) / max(np.sqrt(a @ a), np.sqrt(b @ b)))
    return np.array(values)


def slope_reference(s, t, means, labels):
    """Its gradient, by hand: through the student's norm where that is the larger one, or of a tie."""
    rows = []
    for a, b, y in zip(s, t, labels, strict=True):
        centre = means[y] / np.sqrt((means[y] ** 2).sum())
        na, nb = np.sqrt(a @ a), np.sqrt(b @ b)
        rows.append(-centre / nb if nb > na else -centre / na + (a @ centre) * a / na**3)
    return np.array(rows)


def make(case, batch=8, seed=0):
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(2, batch, WIDTH))
    if case == "duplicates":
        s[1], t[1] = s[0], t[0]
    elif case == "scaled":
        s[2] *= 60
        t[4] *= 60
    elif case == "zero row":
        s[0] = t[3] = 0
    elif case == "ties":
        s[0], t[0] = np.roll(t[0], 1) * np.array([1, -1, 1, 1, -1, 1]), t[0]
        s[1] = t[1]
    return (
        np.float32(s),
        np.float32(t),
        np.float32(rng.normal(size=(CLASSES, WIDTH))),
        rng.integers(0, 4, batch),
    )


@pytest.mark.parametrize("batch", [8, 32])
@pytest.mark.parametrize("case", ["plain", "duplicates", "scaled", "zero row", "ties"])
def test_the_loss_and_its_gradient_equal_the_reference(case, batch):
    s, t, means, y = make(case, batch)
    exact = [np.float64(x) for x in (s, t, means)]
    expected, slope = reference(*exact, y), slope_reference(*exact, y)
    loss = lambda s, t, means: DIRECTION_NORM(s, t, means, jnp.asarray(y))  # noqa: E731
    gradient = jax.grad(lambda *args: loss(*args).sum())
    assert_close(loss(s, t, means), expected, 2e-5)
    assert_close(gradient(s, t, means), slope, 2e-5)
    with jax.enable_x64(True):
        exact = [jnp.asarray(x) for x in exact]
        assert_close(loss(*exact), expected, 1e-9)
        assert_close(gradient(*exact), slope, 1e-9)


def test_it_is_finite_where_both_embeddings_are_zero_and_spares_the_teacher():
    s, t, means, y = make("plain")
    s[0] = t[0] = 0
    value = DIRECTION_NORM(s, t, means, jnp.asarray(y))
    assert value[0] == 1
    slopes = jax.grad(lambda *args: DIRECTION_NORM(*args, jnp.asarray(y)).sum(), argnums=(0, 1, 2))(
        jnp.asarray(s), jnp.asarray(t), jnp.asarray(means)
    )
    assert not slopes[0][0].any()
    assert np.isfinite(slopes[0]).all()
    assert not slopes[1].any()
    assert not slopes[2].any()


def test_a_short_embedding_gains_by_growing_and_a_long_one_does_not():
    centre = np.float32([[1, 0]])
    values = [
        float(DIRECTION_NORM(np.float32([[length, length]]), np.float32([[3, 0]]), centre, jnp.array([0]))[0])
        for length in (0.5, 1.0, 2.0, 4.0, 8.0)
    ]
    assert values[0] > values[1] > values[2]
    assert values[3] == pytest.approx(values[4]) == pytest.approx(1 - 1 / np.sqrt(2))


def make_inputs(student_width, seed=0, size=12):
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(size, student_width)), rng.normal(size=(size, WIDTH))
    logits = jnp.zeros((size, CLASSES))
    mask = np.ones(size, np.float32)
    mask[-2:] = 0
    return Inputs(
        Outputs(logits, jnp.float32(s)),
        Outputs(logits, jnp.float32(t)),
        {"label": jnp.asarray(rng.integers(0, CLASSES, size)), "mask": jnp.asarray(mask)},
        progress=jnp.float32(0),
        epoch=jnp.float32(0),
        strength=jnp.float32(0),
        key=jax.random.key(3),
    )


MEANS = np.random.default_rng(9).normal(size=(CLASSES, WIDTH))


def test_equal_widths_need_no_projector():
    objective = create_objective("kdpp")
    params, state = objective.init(jax.random.key(0), TaskInfo(CLASSES, 2, WIDTH, WIDTH, COUNTS, MEANS))
    assert params == {}
    assert set(state) == {"class_means"}
    inputs = make_inputs(WIDTH)
    found = compiled_pull(objective, params, state, inputs)
    rows = slice(0, 10)
    values = reference(
        *(np.float64(o.embedding)[rows] for o in (inputs.student, inputs.teacher)),
        MEANS,
        np.asarray(inputs.batch["label"])[rows],
    )
    assert float(found.value) == pytest.approx(values.mean(), rel=1e-5)
    assert not found.cotangent.embedding[10:].any()


def test_the_projector_normalises_by_the_batch_and_keeps_statistics():
    objective = create_objective("kdpp", dropout_rate=0.0)
    width = 3
    params, state = objective.init(jax.random.key(0), TaskInfo(CLASSES, 2, width, WIDTH, COUNTS, MEANS))
    assert {"norm", "linear"} == set(params)
    inputs = make_inputs(width)
    found = compiled_pull(objective, params, state, inputs)
    valid = np.asarray(inputs.batch["mask"]) > 0
    s = np.float64(inputs.student.embedding)[valid]
    projected = (s - s.mean(0)) / np.sqrt(s.var(0) + 1e-5)
    projected = projected @ np.float64(params["linear"]["kernel"]) + np.float64(params["linear"]["bias"])
    t, y = np.float64(inputs.teacher.embedding)[valid], np.asarray(inputs.batch["label"])[valid]
    assert float(found.value) == pytest.approx(reference(projected, t, MEANS, y).mean(), rel=1e-5)
    np.testing.assert_allclose(found.state["batch_stats"]["norm"]["mean"], 0.1 * s.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.state["batch_stats"]["norm"]["var"], 0.9 + 0.1 * s.var(0), rtol=1e-5)
    np.testing.assert_array_equal(found.state["class_means"], np.float32(MEANS))
    assert np.abs(found.cotangent.embedding).max() > 0
    assert all(leaf.any() for leaf in jax.tree.leaves(found.gradient["linear"]))


def test_the_projectors_dropout_is_a_function_of_the_steps_key():
    objective = create_objective("kdpp")
    params, state = objective.init(jax.random.key(0), TaskInfo(CLASSES, 2, 30, WIDTH, COUNTS, MEANS))
    inputs = make_inputs(30)
    one, again = (compiled_pull(objective, params, state, inputs).value for _ in range(2))
    other = compiled_pull(objective, params, state, inputs._replace(key=jax.random.key(4))).value
    assert one == again != other


def test_absent_or_unfitting_class_means_are_refused():
    objective = create_objective("kdpp")
    with pytest.raises(UsageError, match="needs the teacher's class means; see fairkd-class-means"):
        objective.init(jax.random.key(0), TaskInfo(CLASSES, 2, WIDTH, WIDTH, COUNTS))
    with pytest.raises(UsageError, match=r"class means of shape \(4, 5\) do not fit; wanted \(4, 6\)"):
        objective.init(jax.random.key(0), TaskInfo(CLASSES, 2, WIDTH, WIDTH, COUNTS, MEANS[:, :5]))
    with pytest.raises(UsageError, match="one width; got student 3, teacher 6 and class means 6"):
        DIRECTION_NORM(jnp.ones((2, 3)), jnp.ones((2, 6)), jnp.ones((4, 6)), jnp.zeros(2, int))
    with pytest.raises(UsageError, match=r"kdpp\.dropout_rate=1.0"):
        create_objective("kdpp", dropout_rate=1.0)
