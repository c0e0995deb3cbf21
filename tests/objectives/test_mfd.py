"""MFD against numpy in float64, written as loops over images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Inputs, TaskInfo, create_objective
from fairkd_jax.objectives.mfd import mmd_loss
from fairkd_jax.types import Outputs
from tests.compared import compiled_pull

MMD = jax.jit(mmd_loss, static_argnames=("num_groups", "num_classes"))


def reference(student, teacher, label, group, groups, classes, variance=None):
    """The loss, and its bandwidth; with a given one, the loss as a function of the rest."""
    if variance is None:
        variance = np.mean([((s - t) ** 2).sum() for s in student for t in teacher])

    def kernel(a, b):
        return np.mean([np.exp(-((x - y) ** 2).sum() / (2 * variance)) for x in a for y in b])

    total = 0.0
    for c in range(classes):
        for g in range(groups):
            s, t = student[(label == c) & (group == g)], teacher[label == c]
            if not len(s):
                continue
            total += kernel(s, s) - 2 * kernel(s, t) + kernel(t, t)
    return total / 2, variance


def draw(size, width, groups, classes, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(size, width)),
        rng.normal(size=(size, width)) + 0.5,
        rng.integers(0, classes, size),
        rng.integers(-1, groups, size),
    )


@pytest.mark.parametrize(("size", "groups", "classes"), [(9, 2, 2), (16, 3, 4), (5, 2, 6)])
def test_value_and_gradient_equal_the_reference(size, groups, classes):
    student, teacher, label, group = draw(size, 4, groups, classes)
    student[1] = student[0]  # duplicates
    with jax.enable_x64(True):
        args = [jnp.asarray(x) for x in (teacher, label, group)]

        def loss(student):
            return MMD(student, *args, num_groups=groups, num_classes=classes)

        value, gradient = jax.value_and_grad(loss)(jnp.asarray(student))
    expected, variance = reference(student, teacher, label, group, groups, classes)
    assert float(value) == pytest.approx(expected, rel=1e-9)
    # No gradient passes through the bandwidth.
    for place in ((0, 0), (2, 1), (size - 1, 3)):
        step = np.zeros_like(student)
        step[place] = 1e-6
        ends = [
            reference(student + sign * step, teacher, label, group, groups, classes, variance)[0]
            for sign in (1, -1)
        ]
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_rows_that_do_not_count_do_not_matter():
    student, teacher, label, group = draw(12, 4, 2, 3)
    mask = np.ones(12)
    mask[-4:] = 0
    few = [jnp.asarray(x[:8]) for x in (student, teacher, label, group)]
    sizes = {"num_groups": 2, "num_classes": 3}
    alone = MMD(*few, **sizes)
    student[-4:], teacher[-4:] = 1e3, -1e3
    whole = [jnp.asarray(x) for x in (student, teacher, label, group, mask)]
    np.testing.assert_allclose(MMD(*whole, **sizes), alone, rtol=1e-5)


def test_nobody_of_known_group_and_equal_distributions_give_zero():
    student, teacher, label, _ = draw(8, 4, 2, 2)
    unknown = jnp.full(8, -1)
    sizes = {"num_groups": 2, "num_classes": 2}
    loss = jax.value_and_grad(lambda x: MMD(x, jnp.asarray(teacher), label, unknown, **sizes))
    value, gradient = loss(jnp.asarray(student))
    assert value == 0
    assert not gradient.any()
    same = MMD(
        jnp.asarray(teacher), jnp.asarray(teacher), jnp.asarray(label), jnp.zeros(8, jnp.int32), **sizes
    )
    assert float(same) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("width", [4, 6])
def test_a_linear_map_stands_between_unequal_widths(width):
    student, teacher, label, group = draw(10, 4, 2, 2)
    teacher = np.random.default_rng(1).normal(size=(10, width))
    info = TaskInfo(2, 2, 4, width, np.array([[5, 5], [5, 5]]))
    objective = create_objective("mfd")
    params, state = objective.init(jax.random.key(0), info)
    assert (params == {}) == (width == 4)
    batch = {"label": jnp.asarray(label), "group": jnp.asarray(group), "mask": jnp.ones(10)}
    outputs = [Outputs(jnp.zeros((10, 2)), jnp.float32(x)) for x in (student, teacher)]
    inputs = Inputs(
        *outputs,
        batch,
        progress=jnp.float32(0),
        epoch=jnp.float32(0),
        strength=jnp.float32(0),
        key=jax.random.key(0),
    )
    found = compiled_pull(objective, params, state, inputs)
    mapped = student @ np.asarray(params["kernel"]) if params else student
    assert float(found.value) == pytest.approx(reference(mapped, teacher, label, group, 2, 2)[0], rel=1e-4)
    assert found.cotangent.embedding.any()
    assert all(leaf.any() for leaf in jax.tree.leaves(found.gradient))


def test_one_known_group_is_refused():
    with pytest.raises(UsageError, match="mfd needs training images of at least two known groups"):
        create_objective("mfd").init(jax.random.key(0), TaskInfo(2, 2, 4, 4, np.array([[5, 5], [0, 0]])))
