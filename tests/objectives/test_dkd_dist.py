"""DKD, DIST and logit standardisation against references written in numpy float64, a sample at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import TaskInfo, create_objective
from fairkd_jax.objectives.ckd import kl_divergence
from fairkd_jax.objectives.dist import dist_loss
from fairkd_jax.objectives.dkd import decoupled_kl
from fairkd_jax.objectives.standardization import standardize
from tests.compared import assert_close, softmax

ALPHA, BETA, GAMMA = 1.5, 8.0, 2.0
# Compiled: operation by operation they take ten times as long.
DKD, DIST, KL = jax.jit(decoupled_kl), jax.jit(dist_loss), jax.jit(kl_divergence)


def kl(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def dkd_reference(s, t, y, temperature):
    values = []
    for zs, zt, label in zip(s, t, y, strict=True):
        p, q = softmax(zt / temperature), softmax(zs / temperature)
        rest = np.delete(np.arange(len(p)), label)
        pair = kl((p[label], p[rest].sum()), (q[label], q[rest].sum()))
        others = kl(softmax(zt[rest] / temperature), softmax(zs[rest] / temperature))
        values.append(temperature**2 * (ALPHA * pair + BETA * others))
    return np.array(values)


def pearson(x, y):
    x, y = x - x.mean(), y - y.mean()
    return (x @ y) / (np.sqrt(x @ x) * np.sqrt(y @ y) + 1e-8)


def dist_reference(s, t, valid, temperature):
    rows = np.flatnonzero(valid)
    p, q = (np.array([softmax(z[i] / temperature) for i in rows]) for z in (t, s))
    images = np.mean([pearson(a, b) for a, b in zip(q, p, strict=True)])
    classes = np.mean([pearson(a, b) for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * (BETA * (1 - images) + GAMMA * (1 - classes))


def make(case, batch=8, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(2, batch, classes))
    if case == "duplicates":
        s[1], t[1], t[3] = s[0], t[0], t[2]
    elif case == "scaled":
        s[2] *= 60
        t[4] *= 60
    elif case == "equal logits":
        s[0] = t[3] = 0.7
    elif case == "large":
        s, t = 100 * s, 100 * t
    # As float32 numbers, so that both precisions see the same ones.
    return np.float32(s), np.float32(t), rng.integers(0, classes, batch)


CASES = ["plain", "duplicates", "scaled", "equal logits", "large"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("temperature", [1.0, 4.0, 15.6])
def test_dkd_equals_the_reference(case, temperature):
    s, t, y = make(case)
    expected = dkd_reference(np.float64(s), np.float64(t), y, temperature)
    options = {"alpha": ALPHA, "beta": BETA, "temperature": temperature}
    assert_close(DKD(jnp.asarray(s), jnp.asarray(t), jnp.asarray(y), **options), expected, 2e-5)
    with jax.enable_x64(True):
        assert_close(DKD(jnp.float64(s), jnp.float64(t), jnp.asarray(y), **options), expected, 1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masked", [False, True])
def test_dist_equals_the_reference(case, masked):
    s, t, _ = make(case)
    mask = np.float32([1, 1, 1, 0, 1, 1, 0, 1]) if masked else None
    expected = dist_reference(np.float64(s), np.float64(t), np.ones(8) if mask is None else mask, 4.0)
    options = {"beta": BETA, "gamma": GAMMA, "temperature": 4.0, "mask": mask}
    assert_close(DIST(jnp.asarray(s), jnp.asarray(t), **options), expected, 2e-5)
    with jax.enable_x64(True):
        assert_close(DIST(jnp.float64(s), jnp.float64(t), **options), expected, 1e-9)


def losses(t, y):
    return {
        "dkd": lambda s, T: DKD(s, t, y, alpha=ALPHA, beta=BETA, temperature=T).sum(),
        "dist": lambda s, T: DIST(s, t, beta=BETA, gamma=GAMMA, temperature=T),
    }


@pytest.mark.parametrize("name", ["dkd", "dist"])
@pytest.mark.parametrize("case", ["plain", "duplicates"])
def test_gradients_equal_finite_differences_of_the_reference(name, case):
    s, t, y = make(case, batch=5, classes=4)
    s, t = np.float64(s), np.float64(t)

    def reference(s, temperature):
        if name == "dkd":
            return dkd_reference(s, t, y, temperature).sum()
        return dist_reference(s, t, np.ones(5), temperature)

    with jax.enable_x64(True):
        loss = losses(jnp.asarray(t), jnp.asarray(y))[name]
        gradient, slope = jax.grad(loss, (0, 1))(jnp.asarray(s), jnp.asarray(4.0))
    expected = np.zeros_like(s)
    for index in np.ndindex(*s.shape):
        step = np.zeros_like(s)
        step[index] = 1e-5
        expected[index] = (reference(s + step, 4.0) - reference(s - step, 4.0)) / 2e-5
    assert_close(gradient, expected, 1e-7)
    assert_close(slope, (reference(s, 4.0 + 1e-5) - reference(s, 4.0 - 1e-5)) / 2e-5, 1e-6)


@pytest.mark.parametrize("name", ["dkd", "dist"])
@pytest.mark.parametrize("case", ["plain", "duplicates", "scaled", "large"])
def test_float32_gradients_equal_float64_ones(name, case):
    for seed in range(4):
        s, t, y = make(case, batch=32, classes=10, seed=seed)
        single = jax.grad(losses(jnp.asarray(t), jnp.asarray(y))[name])(jnp.asarray(s), jnp.float32(4.0))
        with jax.enable_x64(True):
            loss = losses(jnp.float64(t), jnp.asarray(y))[name]
            double = np.asarray(jax.grad(loss)(jnp.float64(s), jnp.asarray(4.0)))
        assert_close(single, double, 2e-5)


def test_equal_logits_pull_on_dist_as_hard_as_in_published_code():
    """The cosine's 1e-8 alone keeps the gradient finite there: it is that of `-<x, y> / 1e-8`."""
    s, t, _ = make("equal logits", classes=4)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda s: DIST(s, t, beta=1.0, gamma=0.0, temperature=4.0))(jnp.float64(s))
    p = softmax(np.float64(t[0]) / 4)
    pulled = (p - p.mean()) / 1e-8  # of the cosine, with respect to the student's softmax
    q = np.full(4, 0.25)
    expected = -16 / 8 * q * (pulled - q @ pulled) / 4
    assert_close(gradient[0], expected, 1e-6)


def test_dkd_with_weights_of_the_label_is_the_usual_divergence():
    """Equation 6 of the paper: KL = label's part + (1 - p_y) others' part."""
    s, t, y = make("plain")
    doubt = np.array([1 - softmax(np.float64(z) / 3)[label] for z, label in zip(t, y, strict=True)])
    parts = [DKD(s, t, jnp.asarray(y), alpha=a, beta=1 - a, temperature=3.0) for a in (1.0, 0.0)]
    np.testing.assert_allclose(parts[0] + doubt * parts[1], KL(s, t, 3.0), rtol=1e-5)


def test_dkd_takes_a_temperature_for_each_sample():
    s, t, y = make("plain")
    temperatures = np.float32([1, 2, 3, 4, 5, 6, 7, 8])
    options = {"alpha": ALPHA, "beta": BETA}
    together = DKD(s, t, jnp.asarray(y), temperature=jnp.asarray(temperatures), **options)
    alone = [
        DKD(s[i : i + 1], t[i : i + 1], jnp.asarray(y[i : i + 1]), temperature=T, **options)[0]
        for i, T in enumerate(temperatures.tolist())
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_the_teacher_gets_no_gradient():
    s, t, y = make("plain")
    for name in ("dkd", "dist"):
        gradient = jax.grad(lambda t, name=name: losses(t, jnp.asarray(y))[name](jnp.asarray(s), 4.0))(t)
        assert not gradient.any()


def test_standardized_logits_equal_the_reference():
    s, _, _ = make("scaled", batch=5)
    expected = [(z - z.mean()) / (1e-7 + z.std(ddof=1)) for z in np.float64(s)]
    assert_close(standardize(jnp.asarray(s)), np.array(expected), 2e-5)
    check_grads(standardize, (jnp.asarray(make("plain")[0]),), order=1, modes=["rev"], rtol=2e-2)
    even = jnp.full((1, 4), 0.5)
    value, pullback = jax.vjp(standardize, even)
    assert not value.any()
    slope = pullback(jnp.array([[1.0, 0, 0, 0]]))[0]
    np.testing.assert_allclose(slope[0], np.array([0.75, -0.25, -0.25, -0.25]) / 1e-7, rtol=1e-5)


def test_standardizing_hides_scale_and_shift():
    s, t, _ = make("plain")
    hidden = KL(standardize(7 * s + 3), standardize(t), 2.0)
    np.testing.assert_allclose(hidden, KL(standardize(s), standardize(t), 2.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dkd", {"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ("dkd", {"beta": -1.0}, r"dkd\.beta=-1.0"),
        ("dkd", {"warmup_epochs": -2.0}, "warmup_epochs=-2.0"),
        ("dist", {"temperature": -4.0}, "temperature=-4.0 must be above 0"),
        ("dist", {"gamma": float("nan")}, r"dist\.gamma=nan"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        create_objective(name, **options)


def test_dkd_refuses_two_classes():
    with pytest.raises(UsageError, match="at least 3 classes, not 2; use ckd"):
        DKD(jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.zeros(3, int), alpha=1, beta=1, temperature=1.0)
    info = TaskInfo(2, 2, 4, 4, np.ones((2, 2)))
    with pytest.raises(UsageError, match="at least 3 classes, not 2; use ckd"):
        create_objective("dkd").init(jax.random.key(0), info)
