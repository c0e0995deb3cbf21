"""The earlier study's critic: its target, its loss and its factor against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Inputs, TaskInfo, create_objective
from fairkd_jax.objectives.bias_critic import compute_batch_bias
from fairkd_jax.types import Outputs
from tests.compared import compiled_pull

CLASSES = 3


def reference_bias(correct, label, group, groups):
    gaps = []
    for c in range(CLASSES):
        recalls = [correct[(label == c) & (group == g)] for g in range(groups)]
        recalls = [r.mean() for r in recalls if len(r)]
        if len(recalls) >= 2:
            gaps.append(recalls[0] - recalls[1] if groups == 2 else max(recalls) - min(recalls))
    return np.mean(gaps) if gaps else 0.0, len(gaps)


def make_inputs(strength, size=20, groups=2, seed=0):
    rng = np.random.default_rng(seed)
    batch = {
        "label": jnp.asarray(rng.integers(0, CLASSES, size)),
        "group": jnp.asarray(rng.integers(-1, groups, size)),
        "mask": jnp.asarray(np.arange(size) < size - 3, jnp.float32),
    }
    outputs = Outputs(jnp.float32(rng.normal(size=(size, CLASSES))), jnp.zeros((size, 2)))
    now = {"progress": jnp.float32(0), "epoch": jnp.float32(0), "key": jax.random.key(0)}
    return Inputs(outputs, None, batch, strength=jnp.float32(strength), **now)


def criticised(params, logits):
    p = jax.tree.map(np.float64, params)
    hidden = np.maximum(np.float64(logits) @ p["hidden0"]["kernel"] + p["hidden0"]["bias"], 0)
    return 1 / (1 + np.exp(-(hidden @ p["output"]["kernel"] + p["output"]["bias"])[:, 0]))


def made(groups=2, **options):
    objective = create_objective("bias_critic", **options)
    info = TaskInfo(CLASSES, groups, 2, 0, np.full((groups, CLASSES), 5))
    return objective, *objective.init(jax.random.key(0), info)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_target_is_the_batchs_own_bias(groups, seed):
    rng = np.random.default_rng(seed)
    correct, label = rng.integers(0, 2, 12), rng.integers(0, CLASSES, 12)
    group = rng.integers(-1, groups, 12)
    expected, number = reference_bias(correct, label, group, groups)
    found, classes = compute_batch_bias(
        jnp.asarray(correct),
        jnp.asarray(label),
        jnp.asarray(group),
        jnp.ones(12),
        shape=(groups, CLASSES),
    )
    assert int(classes) == number
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_critic_learns_and_its_loss_leaves_the_student_alone():
    objective, params, state = made()
    inputs = make_inputs(1.0)
    found = compiled_pull(objective, params, state, inputs)
    label, group, mask = (np.asarray(inputs.batch[k]) for k in ("label", "group", "mask"))
    logits = np.asarray(inputs.student.logits)
    keep = mask > 0
    bias, _ = reference_bias((logits.argmax(1) == label)[keep], label[keep], group[keep], 2)
    expected = ((criticised(params, logits)[keep] - bias) ** 2).mean()
    assert float(found.value) == pytest.approx(expected, rel=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found.cotangent))
    assert all(leaf.any() for leaf in jax.tree.leaves(found.gradient))
    lower = jax.tree.map(lambda p, g: p - 0.1 * g, params, found.gradient)
    assert compiled_pull(objective, lower, state, inputs).value < found.value


@pytest.mark.parametrize("estimate", ["first", "mean"])
def test_the_factor_follows_the_critic(estimate):
    objective, params, _ = made(estimate=estimate, epsilon=0.05, margin=0.01)
    inputs = make_inputs(3.0)
    critic = criticised(params, inputs.student.logits)
    seen = critic[0] if estimate == "first" else critic[:-3].mean()
    factor = objective.influence.factor(params, inputs)
    assert float(factor) == pytest.approx(max(1.0, 3.0 * (seen - 0.05 + 0.01) + 1.0), rel=1e-5)
    slope = jax.grad(
        lambda logits: objective.influence.factor(params, inputs._replace(student=Outputs(logits, logits)))
    )
    rows = np.asarray(slope(inputs.student.logits)).any(axis=1)
    assert rows[0]
    assert rows[1:].any() == (estimate == "mean")
    assert float(objective.influence.factor(params, make_inputs(0.0))) == 1.0


def test_a_batch_without_two_groups_teaches_nothing():
    objective, params, state = made()
    inputs = make_inputs(1.0)
    alone = inputs._replace(batch=inputs.batch | {"group": jnp.zeros(20, jnp.int32)})
    found = compiled_pull(objective, params, state, alone)
    assert found.value == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(found.gradient))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"estimate": "all"}, "estimate='all' is unknown"), ({"epsilon": -0.1}, "must lie in")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        create_objective("bias_critic", **options)


def test_one_known_group_is_refused():
    info = TaskInfo(CLASSES, 2, 2, 0, np.array([[5, 5, 5], [0, 0, 0]]))
    with pytest.raises(UsageError, match="two known groups"):
        create_objective("bias_critic").init(jax.random.key(0), info)
