"""Gradient reversal: identity forward, scaled and negated backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.ops import reverse_gradient


def test_forward_is_the_identity():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(jax.jit(reverse_gradient)(x, 0.3), x)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0, 3.0])
def test_gradient_is_scaled_and_negated(strength):
    x = jnp.linspace(-2.0, 2.0, 7)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(reverse_gradient(x, strength))))(x)
    np.testing.assert_allclose(gradient, -strength * np.cos(x), rtol=1e-6)


def test_strength_receives_no_gradient():
    gradient = jax.grad(lambda s: jnp.sum(reverse_gradient(jnp.ones(3), s) ** 2))(0.7)
    assert gradient == 0.0


def test_changing_the_strength_does_not_retrace():
    traces = []

    @jax.jit
    def gradient(x, strength):
        traces.append(None)
        return jax.grad(lambda x: jnp.sum(reverse_gradient(x, strength)))(x)

    np.testing.assert_array_equal(gradient(jnp.ones(2), 0.5), [-0.5, -0.5])
    np.testing.assert_array_equal(gradient(jnp.ones(2), 2.0), [-2.0, -2.0])
    assert len(traces) == 1


def test_pytrees_keep_structure_and_dtypes():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": [jnp.full((1, 2), 3.0)]}
    primal, pullback = jax.vjp(lambda t: reverse_gradient(t, 2.0), tree)
    (cotangent,) = pullback(tree)
    assert jax.tree.structure(primal) == jax.tree.structure(tree)
    for given, returned in zip(jax.tree.leaves(tree), jax.tree.leaves(cotangent), strict=True):
        assert returned.dtype == given.dtype
        np.testing.assert_array_equal(np.float32(returned), -2.0 * np.float32(given))


def test_vmap_over_x_and_strength():
    x = jnp.ones((3, 4))
    strengths = jnp.asarray([0.0, 1.0, 2.0])

    def gradient(x, strength):
        return jax.grad(lambda x: jnp.sum(reverse_gradient(x, strength)))(x)

    expected = -np.broadcast_to(np.asarray(strengths)[:, None], (3, 4))
    np.testing.assert_array_equal(jax.vmap(gradient)(x, strengths), expected)
    shared = jax.vmap(gradient, in_axes=(None, 0))(x[0], strengths)
    np.testing.assert_array_equal(shared, expected)
