"""CKD, RKD and cross-entropy against references written in numpy float64, one pair or triple at a time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from fairkd_jax.benchmarks.angle import compute_whole_angle_loss
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import ckd, create_objective, cross_entropy, rkd
from tests.compared import softmax


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)  # a probability of 1e-350 is 0, but its logarithm is a number
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def kl_reference(s, t, temperature):
    p, q = log_softmax(t / temperature), log_softmax(s / temperature)
    return temperature**2 * np.array(
        [sum(np.exp(a) * (a - b) for a, b in zip(*pq, strict=True)) for pq in zip(p, q, strict=True)]
    )


def huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def distance_reference(s, t, valid):
    rows = [i for i in range(len(s)) if valid[i]]

    def relations(e):
        d = {
            (i, j): 0.0 if i == j else max(np.sqrt(max(((e[i] - e[j]) ** 2).sum(), 1e-12)), 0)
            for i, j in itertools.product(rows, rows)
        }
        mean = np.mean([v for v in d.values() if v > 0])
        return {k: v / mean for k, v in d.items()}

    a, b = relations(s), relations(t)
    return np.mean([huber(a[k] - b[k]) for k in a])


def angle_reference(s, t, valid):
    rows = [i for i in range(len(s)) if valid[i]]

    def unit(v):
        return v / np.linalg.norm(v) if np.linalg.norm(v) >= 1e-12 else 0 * v

    total = 0.0
    for i, j, k in itertools.product(rows, rows, rows):
        a, b = (unit(e[j] - e[i]) @ unit(e[k] - e[i]) for e in (s, t))
        total += huber(a - b)
    return total / len(rows) ** 3


def make(case, batch=8, widths=(5, 7), seed=0):
    """Embeddings of a named degenerate kind, in float64."""
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(batch, widths[0])), rng.normal(size=(batch, widths[1]))
    if case == "duplicates":
        s[1], t[1], t[3] = s[0], t[0], t[2]
    elif case == "scaled":
        s[2] *= 60
        t[4] *= 60
    elif case == "zero row":
        s[0] = t[3] = 0
    elif case == "far away":
        s += 50
    return s, t


CASES = ["plain", "duplicates", "scaled", "zero row", "far away"]
# Compiled: operation by operation they take ten times as long.
ANGLE, KL = jax.jit(rkd.angle_loss), jax.jit(ckd.kl_divergence)
RELATIONS = {"distance": (jax.jit(rkd.distance_loss), distance_reference), "angle": (ANGLE, angle_reference)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_equal_the_reference(relation, case, masked):
    loss, reference = RELATIONS[relation]
    s, t = make(case)
    mask = np.array([1, 1, 1, 0, 1, 1, 0, 1.0]) if masked else None
    expected = reference(s, t, np.ones(8) if mask is None else mask)
    single = loss(jnp.float32(s), jnp.float32(t), None if mask is None else jnp.float32(mask))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=2e-5)
    with jax.enable_x64(True):
        double = loss(jnp.asarray(s), jnp.asarray(t), None if mask is None else jnp.asarray(mask))
        np.testing.assert_allclose(double, expected, rtol=1e-9)


@pytest.mark.parametrize("case", ["plain", "scaled", "zero row"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_gradients_equal_finite_differences_of_the_reference(relation, case):
    loss, reference = RELATIONS[relation]
    s, t = make(case, batch=5, widths=(3, 4))
    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(loss)(jnp.asarray(s), jnp.asarray(t)))
    expected = np.zeros_like(s)
    for index in np.ndindex(*s.shape):
        step = np.zeros_like(s)
        step[index] = 1e-6
        expected[index] = (reference(s + step, t, np.ones(5)) - reference(s - step, t, np.ones(5))) / 2e-6
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * np.abs(expected).max() + 1e-9)


@pytest.mark.parametrize("batch", [8, 32])
@pytest.mark.parametrize("relation", RELATIONS)
def test_float32_gradients_equal_float64_ones(relation, batch):
    loss, _ = RELATIONS[relation]
    s, t = make("scaled", batch, (1280, 1536))
    single = jax.grad(loss)(jnp.float32(s), jnp.float32(t))
    with jax.enable_x64(True):
        double = np.asarray(jax.grad(loss)(jnp.asarray(s), jnp.asarray(t)))
    assert np.abs(single - double).max() <= 2e-5 * np.abs(double).max()


def explicit_distances(s, t):
    def relative(e):
        squared = jnp.sum((e[:, None] - e[None]) ** 2, axis=-1)
        d = jnp.where(jnp.eye(len(e), dtype=bool), 0.0, jnp.sqrt(jnp.maximum(squared, 1e-12)))
        return d / (d.sum() / (d > 0).sum())

    x = jnp.abs(relative(s) - relative(t))
    return jnp.where(x < 1, 0.5 * x**2, x - 0.5).mean()


def explicit_angles(s, t):
    def cosines(e):
        v = e[None] - e[:, None]
        squared = jnp.sum(v**2, axis=-1, keepdims=True)
        apart = squared >= 1e-24
        u = jnp.where(apart, v / jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        return jnp.einsum("ijd,ikd->ijk", u, u)

    x = jnp.abs(cosines(s) - cosines(t))
    return jnp.where(x < 1, 0.5 * x**2, x - 0.5).mean()


@pytest.mark.parametrize("case", ["duplicates", "scaled", "zero row", "everything"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_float32_keeps_its_precision_in_degenerate_batches(relation, case):
    loss, exact = RELATIONS[relation][0], {"distance": explicit_distances, "angle": explicit_angles}[relation]
    single, double = (jax.jit(jax.value_and_grad(f)) for f in (loss, exact))
    for seed in range(6):
        s, t = make("plain" if case == "everything" else case, 8, (5, 7), seed)
        if case == "everything":  # a duplicated row far away, another one near, and a zero row
            s[4] *= 60
            s[5], s[1], s[3] = s[4], s[0], 0
            t[2] *= 60
        s, t = np.float32(s), np.float32(t)
        value, gradient = single(s, t)
        with jax.enable_x64(True):
            expected, expected_gradient = (np.asarray(x) for x in double(np.float64(s), np.float64(t)))
        assert value == pytest.approx(expected, rel=2e-5)
        assert np.abs(gradient - expected_gradient).max() <= 2e-5 * np.abs(expected_gradient).max()


def test_rows_that_nearly_coincide_do_no_harm_to_the_angle():
    """Closer than float32's inner products can tell, rows count as coinciding."""
    s, t = make("plain")
    s[1] = s[0] + 1e-4 * s[2]
    value, gradient = jax.value_and_grad(ANGLE)(jnp.float32(s), jnp.float32(t))
    s[1] = s[0]
    same, same_gradient = jax.value_and_grad(ANGLE)(jnp.float32(s), jnp.float32(t))
    np.testing.assert_allclose(value, same, rtol=1e-3)
    np.testing.assert_allclose(gradient, same_gradient, atol=2e-2 * np.abs(same_gradient).max())


@pytest.mark.parametrize("relation", RELATIONS)
def test_identical_rows_and_huge_values_stay_finite(relation):
    loss, _ = RELATIONS[relation]
    for s in (np.zeros((6, 4)), np.ones((6, 4)), 1e4 * make("plain", 6, (4, 4))[0]):
        t = make("plain", 6, (4, 4))[1]
        value, gradient = jax.value_and_grad(loss)(jnp.float32(s), jnp.float32(t))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_the_angle_gradient_at_coinciding_rows_is_small():
    s, t = make("duplicates")
    plain = jax.grad(ANGLE)(jnp.float32(make("plain")[0]), jnp.float32(t))
    gradient = jax.grad(ANGLE)(jnp.float32(s), jnp.float32(t))
    assert np.abs(gradient).max() < 10 * np.abs(plain).max()


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_ignore_masked_rows(relation):
    loss, _ = RELATIONS[relation]
    s, t = (jnp.float32(e) for e in make("plain"))
    mask = jnp.array([1, 1, 1, 1, 1, 1, 0, 0.0])
    junk = s.at[6:].set(1e3)
    np.testing.assert_allclose(loss(s, t, mask), loss(s[:6], t[:6]), rtol=1e-6)
    assert loss(s, t, mask) == loss(junk, t, mask)
    assert not jax.grad(loss)(s, t, mask)[6:].any()
    assert np.isfinite(loss(s, t, jnp.zeros(8)))
    assert np.isfinite(jax.grad(loss)(s, t, jnp.zeros(8))).all()


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_do_not_see_a_rotation_or_a_shift(relation):
    loss, _ = RELATIONS[relation]
    s, _ = make("plain", widths=(5, 5))
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert loss(jnp.float32(s), jnp.float32(s @ rotation * 3 + 1)) < 1e-9


@pytest.mark.parametrize(("relation", "smallest"), [("distance", 2), ("angle", 3)])
def test_relations_refuse_a_batch_that_is_too_small(relation, smallest):
    loss, _ = RELATIONS[relation]
    e = jnp.ones((smallest - 1, 4))
    with pytest.raises(UsageError, match=f"at least {smallest}"):
        loss(e, e)
    loss(jnp.eye(smallest, 4), jnp.eye(smallest, 4))


@pytest.mark.parametrize("relation", RELATIONS)
def test_bfloat16_is_computed_in_float32(relation):
    loss, _ = RELATIONS[relation]
    s, t = (jnp.asarray(e, jnp.bfloat16) for e in make("plain"))
    value = loss(s, t)
    assert value.dtype == jnp.float32
    assert value == loss(s.astype(jnp.float32), t.astype(jnp.float32))


def test_relations_under_vmap_equal_single_calls():
    pairs = [make("plain", seed=seed) for seed in range(3)]
    s, t = jnp.float32([p[0] for p in pairs]), jnp.float32(pairs[0][1])
    for loss, _ in RELATIONS.values():
        together = jax.vmap(loss, (0, None))(s, t)
        np.testing.assert_allclose(together, [loss(row, t) for row in s], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    classes=st.sampled_from([2, 5, 9]),
    temperature=st.floats(0.5, 21),
    scale=st.sampled_from([0.3, 1.0, 30.0, 100.0]),
)
def test_kl_divergence_equals_the_reference(seed, classes, temperature, scale):
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(2, 4, classes))
    s, t = s * scale, t * scale
    expected = kl_reference(s, t, temperature)
    with jax.enable_x64(True):
        np.testing.assert_allclose(KL(s, t, temperature), expected, rtol=1e-9, atol=1e-11)
    single = KL(jnp.float32(s), jnp.float32(t), temperature)
    np.testing.assert_allclose(single, expected, atol=2e-5 * expected.max() + 1e-6)


def test_kl_divergence_gradients_reach_student_and_temperature_but_not_the_teacher():
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 4, 5))
    with jax.enable_x64(True):
        temperatures = jnp.array([1.0, 4.0, 15.6, 2.0])
        check_grads(
            lambda s, T: KL(s, t, T).sum(),
            (jnp.asarray(s), temperatures),
            order=1,
            modes=["rev"],
        )
        teacher = jax.grad(lambda t: KL(s, t, 4.0).sum())(jnp.asarray(t))
        assert not teacher.any()


def test_kl_divergence_is_finite_at_extremes():
    extreme = jnp.array([[1e4, -1e4, 0.0], [300.0, -300.0, 0.0]])
    value, gradients = jax.value_and_grad(lambda s, T: KL(s, -extreme, T).sum(), (0, 1))(extreme, 1.0)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_the_reference(smoothing):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(6, 4)) * 3, rng.integers(0, 4, 6)
    target = np.full((6, 4), smoothing / 4)
    target[np.arange(6), y] += 1 - smoothing
    expected = -(target * np.log(softmax(z))).sum(axis=1)
    value = cross_entropy.softmax_cross_entropy(jnp.float32(z), jnp.asarray(y), smoothing)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    check_grads(
        lambda z: cross_entropy.softmax_cross_entropy(z, jnp.asarray(y), smoothing),
        (jnp.float32(z),),
        order=1,
        modes=["rev"],
        rtol=2e-2,
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ckd", {"temperature": -1.0}, r"ckd\.temperature=-1.0"),
        ("ckd", {"temperature": float("nan")}, r"ckd\.temperature=nan"),
        ("cross_entropy", {"label_smoothing": 1.0}, "label_smoothing"),
        ("crd", {}, "unknown objective 'crd'; use one of cross_entropy, ckd"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        create_objective(name, **options)


def test_the_angle_takes_little_memory_and_equals_the_form_without_chunks():
    s, t = (np.float32(e) for e in make("plain", 128, (1280, 1536)))
    forms = [jax.jit(jax.value_and_grad(loss)) for loss in (rkd.angle_loss, compute_whole_angle_loss)]
    chunked, whole = (form.lower(s, t).compile() for form in forms)
    assert chunked.memory_analysis().temp_size_in_bytes <= 8 * 2**20
    assert whole.memory_analysis().temp_size_in_bytes > 30 * 2**20
    with jax.enable_x64(True):
        (value, gradient), (expected, slope) = (form(np.float64(s), np.float64(t)) for form in forms)
        scale = np.abs(slope).max()
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-12 * scale)
    # In float32 each form rounds in its own way, which differs between processors: neither may be far off.
    for form in chunked, whole:
        rounded, rounded_slope = form(s, t)
        np.testing.assert_allclose(rounded, expected, rtol=2e-5)
        np.testing.assert_allclose(rounded_slope, slope, rtol=0, atol=4e-5 * scale)


def test_any_batch_size_splits_into_chunks_of_anchors():
    for batch in (3, 5, 8, 9):
        s, t = make("plain", batch)
        value = ANGLE(jnp.float32(s), jnp.float32(t))
        np.testing.assert_allclose(value, angle_reference(s, t, np.ones(batch)), rtol=2e-5)
