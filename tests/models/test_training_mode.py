"""Training mode: statistics, dtypes, randomness, gradients, populations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from fairkd_jax.models import create_model
from fairkd_jax.models.architecture import Architecture
from fairkd_jax.models.efficientnet import EfficientNet, MBConv
from tests.models.toy import TOY, images, random_variables


@pytest.fixture(scope="module")
def toy():
    model = EfficientNet(TOY, num_classes=5)
    return model, random_variables(model, images(2))


@partial(jax.jit, static_argnums=0)
def train_forward(model, variables, x, key):
    return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})


def test_bfloat16_stays_close_and_keeps_statistics_in_float32(toy):
    model, variables = toy
    narrow = model.clone(dtype=jnp.bfloat16)
    wide_out, wide_vars = train_forward(model, variables, images(16), jax.random.key(0))
    out, new_vars = train_forward(narrow, variables, images(16), jax.random.key(0))
    for a, b in zip(out, wide_out, strict=True):
        assert a.dtype == jnp.float32
        assert np.max(np.abs(a - b)) < 0.05 * np.max(np.abs(b))
    assert {leaf.dtype for leaf in jax.tree.leaves(new_vars)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02), new_vars, wide_vars)


def test_running_averages_follow_the_momentum(toy):
    model, variables = toy
    x = images(8)
    _, updated = train_forward(model, variables, x, jax.random.key(0))
    kernel = variables["params"]["stem_conv"]["kernel"]
    y = lax.conv_general_dilated(
        x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = updated["batch_stats"]["stem_bn"]
    np.testing.assert_allclose(found["mean"], 0.1 * np.mean(y, axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * np.var(y, axis=(0, 1, 2)), rtol=1e-4)


def test_evaluation_is_deterministic_and_drops_nothing(toy):
    model, variables = toy
    lossy = model.clone(architecture=_with_rates(dropout=0.6, depth=0.8))
    apply = jax.jit(lambda v, x: (model.apply(v, x), lossy.apply(v, x, train=False)))
    expected, found = apply(variables, images(4))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _with_rates(dropout, depth):
    return Architecture(**(vars(TOY) | {"dropout_rate": dropout, "stochastic_depth_rate": depth}))


def test_dropout_depends_on_the_key_and_spares_the_embedding(toy):
    model, variables = toy
    lossy = model.clone(architecture=_with_rates(dropout=0.5, depth=0.0))
    x = images(4)
    a, b, c = (train_forward(lossy, variables, x, jax.random.key(i))[0] for i in (0, 0, 1))
    np.testing.assert_array_equal(a.logits, b.logits)
    np.testing.assert_array_equal(a.embedding, c.embedding)
    assert np.any(a.logits != c.logits)


def test_stochastic_depth_drops_whole_rows_and_keeps_the_mean():
    batch, rate = 512, 0.3
    block = MBConv(TOY, TOY.stages[0], 1, rate, jnp.float32)
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 4, 4, 8)), (batch, 4, 4, 8))
    variables = random_variables(block, x, False)
    # All rows are alike: what differs between the rows of the result is the dropping alone.
    run = jax.jit(
        lambda key: block.apply(variables, x, True, mutable=["batch_stats"], rngs={"dropout": key})[0]
    )
    residual = np.asarray(run(jax.random.key(2)) - x)
    sizes = np.abs(residual).max(axis=(1, 2, 3))
    dropped = sizes == 0.0
    assert dropped.mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / batch) ** 0.5)
    # Rows that survive are scaled up by 1 / (1 - rate), all alike.
    kept = residual[~dropped]
    np.testing.assert_allclose(kept, np.broadcast_to(kept[:1], kept.shape), rtol=1e-5, atol=1e-6)
    undropped = MBConv(TOY, TOY.stages[0], 1, 0.0, jnp.float32)
    full = jax.jit(lambda: undropped.apply(variables, x, True, mutable=["batch_stats"])[0])()
    np.testing.assert_allclose(kept[0] * (1 - rate), (full - x)[0], rtol=1e-4, atol=1e-5)


def test_stochastic_depth_rates_rise_with_depth():
    model = create_model("efficientnet_b0", num_classes=2)
    rates = []

    def record(next_function, args, kwargs, context):
        if type(context.module).__name__ == "MBConv":
            rates.append(context.module.drop_rate)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    np.testing.assert_allclose(rates, 0.2 * np.arange(16) / 16)


def test_statistics_are_those_of_the_global_batch(toy):
    model, variables = toy
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, key = images(16), jax.random.key(0)

    def step(variables, x):
        def loss(params):
            tree = {"params": params, "batch_stats": variables["batch_stats"]}
            outputs, updated = model.apply(
                tree, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            return jnp.mean(outputs.logits**2), (outputs, updated)

        return jax.grad(loss, has_aux=True)(variables["params"])

    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    compiled = jax.jit(step).lower(replicated, sharded).compile()
    assert "all-gather" not in compiled.as_text()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        compiled(replicated, sharded),
        jax.jit(step)(variables, x),
    )


def test_gradients_against_finite_differences(toy):
    model, variables = toy
    x = images(4)
    flat, unravel = ravel_pytree(variables["params"])

    @jax.jit
    def loss(flat):
        tree = {"params": unravel(flat), "batch_stats": variables["batch_stats"]}
        outputs, _ = model.apply(tree, x, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.sin(outputs.logits)) + jnp.mean(outputs.embedding**2)

    check_grads(loss, (flat,), order=1, modes=["rev"], eps=1e-2, rtol=2e-2, atol=1e-3)


def test_vmap_over_a_population(toy):
    model, variables = toy
    x = images(3)
    other = jax.tree.map(lambda leaf: 1.01 * leaf, variables)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), variables, other)
    together = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(stacked, x)
    apply = jax.jit(model.apply)
    for i, member in enumerate((variables, other)):
        alone = apply(member, x)
        np.testing.assert_allclose(together.logits[i], alone.logits, rtol=1e-4, atol=1e-5)
