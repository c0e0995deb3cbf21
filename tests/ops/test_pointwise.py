"""1x1 convolution: the product and its gradients, in every precision that trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fairkd_jax.ops import pointwise_conv


def arrays(inputs, outputs):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 3, 3, inputs)), rng.normal(size=(inputs, outputs))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3)])  # each order of the kernel's gradient
def test_gradients(inputs, outputs):
    x, kernel = (jnp.float32(array) for array in arrays(inputs, outputs))
    check_grads(pointwise_conv, (x, kernel), order=1, modes=["rev"], rtol=1e-2)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3)])
def test_bfloat16_activations_and_float32_kernels(inputs, outputs):
    """On a CPU too; sums over the pixels are exact but for the rounding of the factors."""
    x, kernel = arrays(inputs, outputs)
    x_half, kernel_full = jnp.asarray(x, jnp.bfloat16), jnp.float32(kernel)
    dy = np.random.default_rng(1).normal(size=(2, 3, 3, outputs))
    dy_half = jnp.asarray(dy, jnp.bfloat16)
    y, pullback = jax.vjp(pointwise_conv, x_half, kernel_full)
    dx, dkernel = pullback(dy_half)
    assert (y.dtype, dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    rounded, slope = np.asarray(x_half, np.float64), np.asarray(dy_half, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), rounded @ kernel, rtol=0.02, atol=0.03)
    np.testing.assert_allclose(np.asarray(dx, np.float64), slope @ kernel.T, rtol=0.02, atol=0.03)
    np.testing.assert_allclose(dkernel, np.einsum("bhwi,bhwo->io", rounded, slope), rtol=1e-5, atol=1e-5)
