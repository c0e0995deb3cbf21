"""What every objective must do, whatever it computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.engine.sharding import make_batch_sharding, make_mesh, make_replicated_sharding
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import OBJECTIVES, Inputs, TaskInfo, create_objective, differentiate, loss_weights
from fairkd_jax.types import Outputs
from tests.compared import assert_close, compiled_pull

pytestmark = pytest.mark.usefixtures("optimized")  # numbers may differ where a compiler moves them about
CLASSES, STUDENT, TEACHER, BATCH = 5, 12, 16, 16
SPEC = TaskInfo(
    CLASSES,
    2,
    STUDENT,
    TEACHER,
    np.array([[40, 10, 20, 30, 25], [10, 40, 20, 25, 30]]),
    np.ones((5, TEACHER)),
)
# Every objective, and each variant that computes something else.
VARIANTS = {name: (name, {}) for name in OBJECTIVES} | {
    "ctkd, instance": ("ctkd", {"variant": "instance"}),
    "ckd, standardized": ("ckd", {"standardize": True}),
    "dkd, standardized": ("dkd", {"standardize": True}),
    "rkd_angle, normalized": ("rkd_angle", {"normalize": True}),
    "cross_entropy, balanced": ("cross_entropy", {"balanced": True}),
    "adversary, ratio": ("adversary", {"lambda_mode": "ratio"}),
    "adversary, demographic parity": ("adversary", {"condition": "none", "source": "logits"}),
}


def make_inputs(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    draw = lambda width: jnp.float32(scale * rng.normal(size=(BATCH, width)))  # noqa: E731
    batch = {
        "label": jnp.asarray(rng.integers(0, CLASSES, BATCH), jnp.int32),
        "group": jnp.asarray(rng.integers(0, 2, BATCH), jnp.int32),
        "mask": jnp.ones(BATCH, jnp.float32),
        "index": jnp.arange(BATCH),
    }
    return Inputs(
        Outputs(draw(CLASSES), draw(STUDENT)),
        Outputs(draw(CLASSES), draw(TEACHER)),
        batch,
        progress=jnp.float32(0.8),
        epoch=jnp.float32(3.0),
        strength=jnp.float32(0.7),
        key=jax.random.key(5),
    )


@pytest.fixture(params=VARIANTS, scope="module")
def method(request):
    """An objective's compiled `pull`, its parameters and its state."""
    name, options = VARIANTS[request.param]
    objective = create_objective(name, **options)

    @jax.jit
    def start():
        params, state = objective.init(jax.random.key(0), SPEC)
        # Not as at the start, where the last layer of a perceptron may be 0.
        moved = lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype).reshape(x.shape))  # noqa: E731
        return jax.tree.map(moved, params), state

    return functools.partial(compiled_pull, objective), *start()


def test_eight_devices_give_what_one_gives(method):
    run, params, state = method
    inputs = make_inputs()
    alone = jax.device_get(run(params, state, inputs))
    mesh = make_mesh(jax.devices())
    rows, everywhere = make_batch_sharding(mesh), make_replicated_sharding(mesh)
    split = lambda leaf: rows if leaf.shape[:1] == (BATCH,) else everywhere  # noqa: E731
    spread = jax.tree.map(lambda leaf: jax.device_put(leaf, split(leaf)), inputs)
    whole = jax.device_put((params, state), everywhere)
    together = run(*whole, spread)
    assert len(spread.student.logits.sharding.device_set) == 8
    together = jax.device_get(together)
    # The gradient to a learnt temperature is a small difference of large terms.
    assert_close(together.gradient, alone.gradient, 1e-3 if "temperature" in params else 1e-5, smallest=1e-6)
    assert_close(together._replace(gradient=None), alone._replace(gradient=None), 1e-5, smallest=1e-6)


def test_students_under_vmap_equal_single_ones(method):
    run, params, state = method
    students = [make_inputs(seed).student for seed in range(3)]
    inputs = make_inputs()
    stacked = Outputs(*(jnp.stack(parts) for parts in zip(*students, strict=True)))
    together = jax.jit(jax.vmap(lambda student: run(params, state, inputs._replace(student=student))))(
        stacked
    )
    for i, student in enumerate(students):
        alone = run(params, state, inputs._replace(student=student))
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), alone, 2e-5, smallest=1e-6)


def test_half_precision_is_computed_in_float32(method):
    run, params, state = method
    inputs = make_inputs()
    halved = inputs._replace(
        student=Outputs(*(x.astype(jnp.bfloat16) for x in inputs.student)),
        teacher=Outputs(*(x.astype(jnp.bfloat16) for x in inputs.teacher)),
    )
    widened = halved._replace(
        student=Outputs(*(x.astype(jnp.float32) for x in halved.student)),
        teacher=Outputs(*(x.astype(jnp.float32) for x in halved.teacher)),
    )
    low, high = (run(params, state, x) for x in (halved, widened))
    assert low.value.dtype == jnp.float32
    np.testing.assert_allclose(low.value, high.value, rtol=1e-6)


def test_masked_rows_do_not_matter(method):
    run, params, state = method
    inputs = make_inputs()
    mask = inputs.batch["mask"].at[-3:].set(0.0)
    masked = inputs._replace(batch=inputs.batch | {"mask": mask})
    junk = masked._replace(
        student=Outputs(*(x.at[-3:].set(1e4) for x in masked.student)),
        teacher=Outputs(*(x.at[-3:].set(-1e4) for x in masked.teacher)),
    )
    plain, changed = (run(params, state, x) for x in (masked, junk))
    np.testing.assert_allclose(plain.value, changed.value, rtol=1e-5)
    assert_close(plain.gradient, changed.gradient, 1e-5, smallest=1e-6)
    assert not any(np.asarray(x)[-3:].any() for x in changed.cotangent)


def test_losses_and_gradients_are_finite_at_extremes(method):
    run, params, state = method
    even = make_inputs()
    even = even._replace(
        student=Outputs(*(jnp.ones_like(x) for x in even.student)),
        teacher=Outputs(*(jnp.zeros_like(x) for x in even.teacher)),
    )
    for inputs in (make_inputs(scale=1e4), even):
        found = run(params, state, inputs)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_weights_of_samples_weigh_a_loss_per_example():
    for name in ("cross_entropy", "ckd", "ctkd", "dkd"):
        objective = create_objective(name)
        params, state = objective.init(jax.random.key(0), SPEC)
        inputs = make_inputs()
        values, _ = objective.loss(params, state, inputs)
        weights = jnp.linspace(0.0, 2.0, BATCH)
        weighed = differentiate(
            objective, params, state, inputs._replace(batch=inputs.batch | {"mask": weights})
        )
        expected = (np.float64(values) * np.float64(weights)).sum() / np.float64(weights).sum()
        assert float(weighed.value) == pytest.approx(expected, rel=1e-5)


def test_a_weight_rises_during_its_warmup():
    objectives = {"ckd": create_objective("ckd", warmup_epochs=4.0), "kdpp": create_objective("kdpp")}
    weights = {"ckd": jnp.float32(2.0), "kdpp": jnp.float32(3.0)}
    for epoch, expected in ((0.0, 0.0), (1.0, 0.5), (4.0, 2.0), (9.0, 2.0)):
        factors = loss_weights(objectives, weights, jnp.float32(epoch))
        assert float(factors["ckd"]) == pytest.approx(expected)
        assert float(factors["kdpp"]) == 3.0


def test_an_option_that_a_method_has_not_is_named():
    with pytest.raises(UsageError, match=r"rkd_angle\.temperature is no option .* are: normalize"):
        create_objective("rkd_angle", temperature=2.0)
