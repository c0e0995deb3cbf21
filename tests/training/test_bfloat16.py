"""Student and teacher in bfloat16 on a CPU: the losses and gradients of float32, to bfloat16's precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from fairkd_jax.objectives import OBJECTIVES

MEANS = np.random.default_rng(3).normal(size=(4, 32))
# What acts through another method's loss needs that loss.
PARTNERS = {"adversary": "cross_entropy", "bias_critic": "cross_entropy"}


@pytest.fixture(scope="module")
def tasks(make_task):
    optimizers = dict.fromkeys(("student", *OBJECTIVES), optax.sgd(1.0))
    options = {"names": tuple(OBJECTIVES), "optimizers": optimizers, "class_means": MEANS}
    return [make_task(**options, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_method_learns_as_in_float32(tasks, make_batch, name):
    """One compiled step for each number format: a method is chosen by its weight."""
    weights = {key: jnp.float32(key in (name, PARTNERS.get(name))) for key in OBJECTIVES}
    losses, gradients = [], []
    for task in tasks:
        before = tasks[0].compiled_init().replace(step=jnp.int32(10))
        after, metrics = task.compiled_step(before, task.teacher_variables, make_batch(), weights)
        assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.float32)}
        change = jax.tree.map(lambda old, new: old - new, before.params, after.params)
        gradients.append(np.asarray(ravel_pytree(change["student"])[0], np.float64))
        losses.append(float(metrics[f"{name}/loss"][0]))
    full, half = gradients
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert 0 < np.linalg.norm(half - full) < 0.1 * np.linalg.norm(full)
