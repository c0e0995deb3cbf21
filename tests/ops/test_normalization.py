"""BatchNorm and 1x1 convolution: values and gradients of the plain formulas, also batched and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fairkd_jax.models.layers import BatchNorm
from fairkd_jax.ops import batch_norm, native, pointwise_conv
from tests.compared import assert_close

EPSILON = 1e-3


needs_compiler = pytest.mark.skipif(not native.is_available(), reason="no C++ compiler")
OURS = ["plain", pytest.param("native", marks=needs_compiler)]


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) + 0.3, dtype)


def plain(x, scale, bias, swish):
    """The formula in numpy's order of operations, differentiated by JAX."""
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axis=axes, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=axes, keepdims=True)
    z = (x - mean) / jnp.sqrt(variance + EPSILON) * scale + bias
    return z / (1 + jnp.exp(-z)) if swish else z


def value_and_gradients(function, arguments, slope):
    @jax.jit
    def both(slope, *arguments):
        value, pullback = jax.vjp(function, *arguments)
        return value, *pullback(slope)

    return both(slope, *arguments)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("swish", [False, True])
@pytest.mark.parametrize("shape", [(8, 5, 7, 6), (6, 1, 1, 3), (32, 4), (16, 16, 16, 43)])
def test_batch_norm_equals_the_formula(shape, swish, name):
    scale, bias = random(shape[-1], seed=1)[None], random(shape[-1], seed=2)[None]
    arguments, slope = (random(*shape), scale[0], bias[0]), random(*shape, seed=3)

    def ours(x, scale, bias):
        return batch_norm(x, scale, bias, EPSILON, swish, name if x.dtype == jnp.float32 else "plain")[0]

    def wanted(x, scale, bias):
        over = (1,) * (x.ndim - 1) + scale.shape
        return plain(x, scale.reshape(over), bias.reshape(over), swish)

    with jax.enable_x64(True):
        wide = [jnp.asarray(np.float64(a)) for a in (*arguments, slope)]
        expected = value_and_gradients(wanted, wide[:3], wide[3])
        assert_close(value_and_gradients(ours, wide[:3], wide[3]), expected, 1e-9)
        assert_close(value_and_gradients(ours, arguments, slope), expected, 2e-5)


def test_batch_norm_in_bfloat16_accumulates_in_float32():
    x, scale, bias = random(16, 9, 9, 5, dtype=jnp.bfloat16), random(5, seed=1), random(5, seed=2)
    y, mean, variance = batch_norm(x, scale, bias, EPSILON, True)
    assert (y.dtype, mean.dtype, variance.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    wide = np.float64(x)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=1e-4)
    over = (1, 1, 1, 5)
    expected = plain(x.astype(jnp.float32), scale.reshape(over), bias.reshape(over), True)
    assert_close([y], [expected], 0.01)
    gradient = jax.grad(lambda x: batch_norm(x, scale, bias, EPSILON, True)[0].sum())(x)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("swish", [False, True])
def test_the_layer_is_flaxs(swish):
    x = random(8, 6, 6, 4)
    ours = BatchNorm(train=True, momentum=0.9, epsilon=EPSILON, swish=swish)
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=EPSILON)
    variables = ours.init(jax.random.key(0), x)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, theirs.init(jax.random.key(0), x)))
    y, updated = ours.apply(variables, x, mutable=["batch_stats"])
    expected, wanted = theirs.apply(variables, x, mutable=["batch_stats"])
    expected = nn.swish(expected) if swish else expected
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updated, wanted)
    variables = variables | updated
    y = ours.clone(train=False).apply(variables, x)
    expected = theirs.clone(use_running_average=True).apply(variables, x)
    np.testing.assert_allclose(y, nn.swish(expected) if swish else expected, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
@pytest.mark.parametrize("leading", [(6,), (4, 3, 5)])
def test_pointwise_equals_the_product(leading, inputs, outputs):
    arguments = random(*leading, inputs), random(inputs, outputs, seed=1)
    slope = random(*leading, outputs, seed=2)
    expected = value_and_gradients(jnp.matmul, arguments, slope)
    assert_close(value_and_gradients(pointwise_conv, arguments, slope), expected, 1e-5)
    half = arguments[0].astype(jnp.bfloat16)
    value, dx, dkernel = value_and_gradients(pointwise_conv, (half, arguments[1]), slope.astype(jnp.bfloat16))
    assert (value.dtype, dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    assert_close([value, dx, dkernel], expected, 0.03)


@needs_compiler
def test_the_kernels_saturate_and_keep_what_is_not_finite():
    x = jnp.asarray([[-1e4, 0.0], [1e4, np.nan], [0.0, np.inf], [2.0, 1.0]], jnp.float32)
    scale, bias = jnp.asarray([300.0, 1.0]), jnp.zeros(2)  # z reaches some hundreds

    def run(name):
        def ours(x, scale, bias):
            return batch_norm(x, scale, bias, EPSILON, True, name)[0]

        return value_and_gradients(jax.jit(ours), (x, scale, bias), jnp.ones_like(x))

    for found, expected in zip(run("native"), run("plain"), strict=True):
        np.testing.assert_allclose(found[..., 0], expected[..., 0], rtol=1e-5, atol=1e-4)
        assert np.isnan(found[..., 1]).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="implementation='fused' is unknown"):
        batch_norm(random(4, 2), random(2), random(2), EPSILON, True, "fused")


def block(x, kernel, scale, bias, name=None):
    return batch_norm(pointwise_conv(x, kernel), scale, bias, EPSILON, True, name)[0]


@pytest.mark.parametrize("name", OURS)
def test_under_vmap(name):
    members = [
        (random(16, 4, 4, 3, seed=s), random(3, 6, seed=s + 1), random(6, seed=s + 2), random(6, seed=s + 3))
        for s in (0, 10)
    ]
    slope = random(16, 4, 4, 6, seed=5)

    def one(*arguments):
        return value_and_gradients(lambda *a: block(*a, name), arguments, slope)

    alone = [jax.jit(one)(*member) for member in members]
    together = jax.jit(jax.vmap(one))(*(jnp.stack(parts) for parts in zip(*members, strict=True)))
    for number, expected in enumerate(alone):
        assert_close([part[number] for part in together], expected, 1e-5)


def test_sharded():
    arguments = random(16, 4, 4, 3), random(3, 6, seed=1), random(6, seed=2), random(6, seed=3)
    slope = random(16, 4, 4, 6, seed=5)

    def one(*arguments):
        return value_and_gradients(block, arguments, slope)

    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    sharded = jax.jit(one, in_shardings=(split, whole, whole, whole))
    assert_close(sharded(*arguments), jax.jit(one)(*arguments), 1e-5)
    text = sharded.lower(*arguments).compile().as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
