"""Comparisons that several files of tests make."""

import jax
import numpy as np

from fairkd_jax.objectives import differentiate

# Compiled once for each objective: operation by operation it takes ten times as long.
compiled_pull = jax.jit(differentiate, static_argnums=0)


def assert_close(found, expected, tolerance, smallest=0.0):
    """Asserts that no leaf is further off than the tolerance times its largest value, at least `smallest`."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.float64(a), np.float64(b)
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), smallest)


def softmax(z):
    """Over the last axis, in numpy."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
