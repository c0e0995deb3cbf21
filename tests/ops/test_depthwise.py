"""Depthwise convolution against lax.conv_general_dilated, in value and gradient."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from fairkd_jax.ops import depthwise_conv, native, patch_convolution

needs_compiler = pytest.mark.skipif(not native.is_available(), reason="no C++ compiler")
OURS = ["shift", pytest.param("native", marks=needs_compiler)]

SYMMETRIC = {3: ((1, 1), (1, 1)), 5: ((2, 2), (2, 2))}
# TensorFlow's convention at stride 2: the odd pixel goes after an image of even size.
SAME = {
    (3, 1, 8): (1, 1),
    (3, 1, 7): (1, 1),
    (3, 2, 8): (0, 1),
    (3, 2, 7): (1, 1),
    (5, 1, 8): (2, 2),
    (5, 1, 7): (2, 2),
    (5, 2, 8): (1, 2),
    (5, 2, 7): (2, 2),
}


def reference(x, kernel, stride, pads):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def value_and_gradients(function, x, kernel):
    @jax.jit
    def run(x, kernel):
        y, pullback = jax.vjp(function, x, kernel)
        slopes = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype)
        return y, *pullback(slopes)

    return [np.asarray(a, np.float32) for a in run(x, kernel)]


def inputs(shape, kernel_size, dtype):
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    kernel = jax.random.normal(jax.random.key(1), (kernel_size, kernel_size, 1, shape[-1]), dtype)
    return x, kernel


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"),
    [
        (3, 1, "symmetric"),
        (3, 2, "symmetric"),
        (3, 2, "SAME"),
        (3, 2, ((0, 2), (1, 0))),
        (5, 1, "SAME"),
        (5, 2, "SAME"),
        (5, 2, "symmetric"),
        (5, 1, ((0, 2), (1, 0))),
        (3, 1, ((4, 3), (3, 4))),
        (3, 2, ((0, 0), (5, 0))),
    ],
)
@pytest.mark.parametrize("channels", [3, 43])  # 43: two and a half vectors of the kernels in C++, and 3 more
@pytest.mark.parametrize("name", OURS)
def test_ours_agree_with_lax(name, channels, kernel_size, stride, padding):
    height, width = 8, 7
    if padding == "SAME":
        pads = tuple(SAME[kernel_size, stride, size] for size in (height, width))
    else:
        pads = SYMMETRIC[kernel_size] if padding == "symmetric" else padding
    x, kernel = inputs((2, height, width, channels), kernel_size, jnp.float32)
    expected = value_and_gradients(lambda x, k: reference(x, k, stride, pads), x, kernel)
    found = value_and_gradients(
        lambda x, k: depthwise_conv(x, k, stride=stride, padding=padding, implementation=name), x, kernel
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lax", None])
def test_other_implementations_agree(name):
    x, kernel = inputs((2, 8, 7, 3), 5, jnp.float32)
    found = depthwise_conv(x, kernel, stride=2, padding="SAME", implementation=name)
    expected = reference(x, kernel, 2, (SAME[5, 2, 8], SAME[5, 2, 7]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (5, 2)])
def test_bfloat16_is_accumulated_in_float32(kernel_size, stride):
    x, kernel = inputs((4, 9, 9, 3), kernel_size, jnp.bfloat16)
    wide = value_and_gradients(
        lambda x, k: reference(x, k, stride, SYMMETRIC[kernel_size]),
        x.astype(jnp.float32),
        kernel.astype(jnp.float32),
    )
    narrow = value_and_gradients(
        lambda x, k: depthwise_conv(x, k, stride=stride, padding="symmetric", implementation="shift"),
        x,
        kernel,
    )
    for a, b in zip(narrow, wide, strict=True):
        # One rounding of the result and one of the slopes: half a unit in 8 bits each.
        assert np.max(np.abs(a - b)) < 2.0**-7 * np.max(np.abs(b))


def exact(x, kernel, slopes, stride, pad):
    """Convolution and both gradients in float64, and of each the sum of its terms' absolute values."""
    x, kernel, slopes = (np.asarray(a, np.float64) for a in (x, kernel, slopes))
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    sums = [np.zeros(shape) for shape in (slopes.shape, padded.shape, kernel.shape) for _ in range(2)]
    for i, j in np.ndindex(kernel.shape[:2]):
        rows, columns = (
            slice(start, start + stride * n, stride)
            for start, n in ((i, slopes.shape[1]), (j, slopes.shape[2]))
        )
        seen, weight = padded[:, rows, columns], kernel[i, j, 0]
        for change, (y, dx, dkernel) in ((np.positive, sums[::2]), (np.abs, sums[1::2])):
            y += change(seen * weight)
            dx[:, rows, columns] += change(slopes * weight)
            dkernel[i, j, 0] += change(seen * slopes).sum(axis=(0, 1, 2))
    inside = slice(pad, -pad)
    return sums[:2], [dx[:, inside, inside] for dx in sums[2:4]], sums[4:]


@pytest.mark.parametrize("name", ["shift", "lax"])
def test_sums_of_bfloat16_are_rounded_once(name):
    """Each result, and each gradient, is as near to the exact one as bfloat16 can be."""
    rng = np.random.default_rng(0)
    shapes = (4, 9, 9, 3), (5, 5, 1, 3), (4, 5, 5, 3)
    x, kernel, slopes = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiled in half the time
    def run(x, kernel, slopes):
        convolve = partial(depthwise_conv, stride=2, padding="symmetric", implementation=name)
        y, pullback = jax.vjp(convolve, x, kernel)
        return y, *pullback(slopes)

    for found, (expected, size) in zip(run(x, kernel, slopes), exact(x, kernel, slopes, 2, 2), strict=True):
        assert found.dtype == jnp.bfloat16
        half_a_unit = 2.0 ** (np.floor(np.log2(np.abs(expected))) - 8)
        error = np.abs(np.asarray(found, np.float64) - expected)
        assert np.all(error <= half_a_unit + 2.0**-20 * size)  # and what float32 loses in a sum


@pytest.mark.parametrize("name", ["shift", "lax"])
def test_dtypes_of_result_and_gradients(name):
    def gradients(x, kernel):
        y, pullback = jax.vjp(
            lambda x, k: depthwise_conv(x, k, stride=1, padding="SAME", implementation=name), x, kernel
        )
        return y, *pullback(y)

    image, weights = jnp.zeros((2, 6, 6, 3), jnp.bfloat16), jnp.zeros((3, 3, 1, 3), jnp.float32)
    dtypes = [result.dtype for result in jax.eval_shape(gradients, image, weights)]
    assert dtypes == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize(("kernel_size", "stride", "axes"), [(3, 2, (None, 0)), (5, 1, (0, 0))])
def test_vmap_over_kernels_and_over_both(kernel_size, stride, axes, ours):
    x = jax.random.normal(jax.random.key(0), (3, 2, 7, 6, 4))
    kernels = jax.random.normal(jax.random.key(1), (3, kernel_size, kernel_size, 1, 4))

    def gradients(x, kernel, name):
        def loss(x, kernel):
            y = depthwise_conv(x, kernel, stride=stride, padding="symmetric", implementation=name)
            return jnp.sum(jnp.sin(y))

        return jax.grad(loss, argnums=(0, 1))(x, kernel)

    found, expected = (
        jax.jit(jax.vmap(partial(gradients, name=name), in_axes=axes))(x if axes[0] == 0 else x[0], kernels)
        for name in (ours, "lax")
    )
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-4), found, expected)


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3])
def test_images_smaller_than_the_kernel(size):
    x, kernel = inputs((3, size, size, 24), 5, jnp.float32)

    def run(name):
        convolve = partial(depthwise_conv, stride=2, padding="symmetric", implementation=name)
        return value_and_gradients(convolve, x, kernel)

    for a, b in zip(run("native"), run("lax"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_gradients_against_finite_differences(name):
    x, kernel = inputs((1, 4, 5, 2), 3, jnp.float32)
    convolve = partial(depthwise_conv, stride=2, padding="SAME", implementation=name)
    check_grads(jax.jit(convolve), (x, kernel), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_sharded_batch_stays_where_it_is(stride):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows, replicated = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x, kernel = inputs((16, 8, 8, 6), 3, jnp.float32)

    def gradients(x, kernel):
        def loss(x, kernel):
            y = depthwise_conv(x, kernel, stride=stride, padding="SAME", implementation="shift")
            return jnp.sum(jnp.sin(y))

        return jax.grad(loss, argnums=(0, 1))(x, kernel)

    shardings = (rows, replicated)
    jitted = jax.jit(gradients, in_shardings=shardings, out_shardings=shardings)
    compiled = jitted.lower(x, kernel).compile()
    program = compiled.as_text()
    assert not re.search("all-gather|all-to-all|collective-permute", program)
    # One sum for the weights, after the loop over rows and not in it.
    assert program.count("all-reduce(") == program[program.index("ENTRY") :].count("all-reduce(") == 1
    found = compiled(jax.device_put(x, rows), jax.device_put(kernel, replicated))
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-4),
        found,
        jax.jit(gradients)(x, kernel),
    )


@pytest.mark.parametrize(
    ("stride", "padding", "size"), [(1, "SAME", 7), (2, "SAME", 7), (2, "SAME", 8), (2, "symmetric", 8)]
)
def test_patch_convolution_agrees_with_lax(stride, padding, size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    pads = (SAME[3, stride, size],) * 2 if padding == "SAME" else SYMMETRIC[3]

    def dense(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = value_and_gradients(
        lambda x, k: patch_convolution(x, k, stride=stride, padding=padding), x, kernel
    )
    for a, b in zip(found, value_and_gradients(dense, x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_mistakes_are_named():
    x, kernel = inputs((1, 6, 6, 2), 3, jnp.float32)
    with pytest.raises(ValueError, match=r"implementation='winograd' is unknown.*lax.*native.*shift"):
        depthwise_conv(x, kernel, stride=1, padding="SAME", implementation="winograd")
    with pytest.raises(ValueError, match=r"it must be \[k, k, 1, 2\]"):
        depthwise_conv(x, jnp.ones((3, 3, 2, 2)), stride=1, padding="SAME")
    with pytest.raises(ValueError, match="padding='VALID' is unknown"):
        depthwise_conv(x, kernel, stride=1, padding="VALID")
    with pytest.raises(ValueError, match="must not be negative"):
        depthwise_conv(x, kernel, stride=1, padding=((0, 0), (-1, 0)))
    with pytest.raises(ValueError, match="would skip pixels"):
        depthwise_conv(x, jnp.ones((1, 1, 1, 2)), stride=2, padding="SAME")
