"""How each way of debiasing acts on the student, against gradients of the whole formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairkd_jax.data.augment import Augmentation, augment
from fairkd_jax.engine.gradients import project_out
from fairkd_jax.engine.state import rng_key
from fairkd_jax.engine.train_step import COUNTS
from fairkd_jax.objectives import ckd
from fairkd_jax.objectives.mlp import MLP

STEP = 7


@jax.jit
def seen(pixels):
    """What student and teacher see of a batch at step 7."""
    return augment(rng_key(0, "augment", STEP), pixels, Augmentation(flip=True), size=pixels.shape[1])


class Once:
    """One step of a task, at step 7, and the pieces to write its losses down again."""

    def __init__(self, task, batch):
        self.task = task
        self.state = task.compiled_init().replace(step=jnp.int32(STEP))
        self.batch = {name: jnp.asarray(value) for name, value in batch.items()}
        self.images = seen(self.batch["image"])
        self.teacher = task.compiled_teacher(task.teacher_variables, self.images)
        self.after, self.metrics = task.compiled_step(
            self.state, task.teacher_variables, self.batch, task.weights
        )

    def outputs(self, params):
        return self.task.student.apply(
            {"params": params, "batch_stats": self.state.batch_stats},
            self.images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng_key(0, "dropout", STEP)},
        )[0]

    def taught(self, params):
        """Cross-entropy and CKD, each by itself."""
        outputs = self.outputs(params)
        labels = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, self.batch["label"])
        return labels.mean(), 0.9 * ckd.kl_divergence(outputs.logits, self.teacher.logits, 4.0).mean()

    def read(self, params):
        """The adversary's loss, not reversed."""
        outputs = self.outputs(params)
        features = jnp.concatenate([outputs.embedding, jax.nn.one_hot(self.batch["label"], 4)], axis=1)
        logits = MLP((128, 128), 2).apply({"params": self.state.params["adversary"]}, features)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, self.batch["group"])
        table = self.state.objective_state["adversary"]["weights"]
        weight = table[self.batch["group"], self.batch["label"]]
        return (weight * nats).sum() / weight.sum()

    def moved(self):
        """The student's gradient, from what SGD at 0.01 made of it."""
        before, after = self.state.params["student"], self.after.params["student"]
        return jax.tree.map(lambda a, b: np.float64(b - a) / 0.01, after, before)


def close(found, expected, tolerance=2e-4):
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() < tolerance * scale


def ramp(warmup=0.0):
    return 2 / (1 + np.exp(-10 * (STEP / 20 - warmup) / (1 - warmup))) - 1


def flat(tree):
    return np.concatenate([np.float64(leaf).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def once_with(make_task, make_batch):
    """A step of cross-entropy, CKD and an adversary with these options; each is compiled once."""
    tasks = {}

    def once(weight, **options):
        key = repr(options)
        if key not in tasks:
            task = make_task(("cross_entropy", "ckd", "adversary"), options={"adversary": options})
            tasks[key] = task, {}
        task, gradients = tasks[key]
        task.weights |= {"adversary": jnp.float32(weight)}
        found = Once(task, make_batch())
        if not gradients:  # the state before the step is always the same
            student = found.state.params["student"]
            gradients["taught"] = jax.jit(jax.grad(lambda params: sum(found.taught(params))))(student)
            gradients["read"] = jax.jit(jax.grad(found.read))(student)
        return found, gradients["taught"], gradients["read"]

    return once


@pytest.mark.parametrize("weight", [0.0, 0.5, 30.0])
def test_a_ratio_is_the_ratio_that_was_asked_for(once_with, weight):
    once, gradient, own = once_with(weight, lambda_mode="ratio", warmup=0.1)
    pulled, taught = once.metrics["gradient_ratio"]
    assert float(pulled / taught) == pytest.approx(weight * ramp(0.1), rel=1e-4)
    assert float(once.metrics["adversary/strength"][0]) == pytest.approx(weight * ramp(0.1), rel=1e-5)
    # The direction is the adversary's own, and its learning does not know lambda.
    difference = flat(once.moved()) - flat(gradient)
    if weight:
        cosine = difference @ flat(own) / np.linalg.norm(difference) / np.linalg.norm(flat(own))
        assert cosine < -0.999
    else:
        close(once.moved(), gradient)
    assert once.metrics["adversary/gradient_norm"][0] > 0.01


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_projection_is_zhangs(once_with, weight):
    once, g, a = once_with(weight, projection=True, warmup=0.0)
    share = flat(g) @ flat(a) / (flat(a) @ flat(a)) if weight else 0.0
    close(once.moved(), jax.tree.map(lambda g, a: g - (share + weight * ramp()) * a, g, a))
    cosine = flat(g) @ flat(a) / np.linalg.norm(flat(g)) / np.linalg.norm(flat(a))
    assert float(once.metrics["adversary/cosine"][0]) == pytest.approx(cosine, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8), st.floats(0.01, 9))
def test_what_is_left_of_a_projection_does_not_help_the_adversary(pairs, strength):
    g, a = (jnp.asarray(np.array(x), jnp.float32) for x in zip(*pairs, strict=True))
    left, cosine = project_out({"w": g}, {"w": a}, jnp.float32(strength))
    along = float((left["w"] + strength * a) @ a)
    scale = float(jnp.linalg.norm(g) * jnp.linalg.norm(a)) + strength * float(a @ a) + 1e-3
    if float(a @ a) > 1e-6:
        assert abs(along) < 1e-4 * scale
    assert abs(float(cosine)) <= 1 + 1e-5


def test_further_steps_of_the_adversary_are_steps(make_task, make_batch):
    """With a student that stands still, three at once are three one after the other."""
    still = {"student": optax.sgd(0.0), "adversary": optax.adam(1e-2)}
    common = {"optimizers": still, "flip": False, "rate": 0.0}
    batch = {name: jnp.asarray(value) for name, value in make_batch().items()}

    def run(steps, times):
        task = make_task(("cross_entropy", "adversary"), options={"adversary": {"steps": steps}}, **common)
        state, step = task.compiled_init(), task.compiled_step
        for _ in range(times):
            state, metrics = step(state, task.teacher_variables, batch, task.weights)
        return state, metrics

    (at_once, found), (in_turn, last) = run(3, 1), run(1, 3)
    close(at_once.params["adversary"], in_turn.params["adversary"], 1e-5)
    assert float(found["adversary/loss"][0]) == pytest.approx(float(last["adversary/loss"][0]), rel=1e-5)
    counts = [leaf for leaf in jax.tree.leaves(at_once.opt_state["adversary"]) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts] == [3]


def test_the_critics_factor_multiplies_the_labels_loss_alone(make_task, make_batch):
    task = make_task(("cross_entropy", "ckd", "bias_critic"))
    once = Once(task, make_batch())

    def total(params):
        labels, teacher = once.taught(params)
        reader = MLP((256,), 1)
        score = reader.apply({"params": once.state.params["bias_critic"]}, once.outputs(params).logits)
        return labels * jnp.maximum(1.0, 2.0 * (jax.nn.sigmoid(score[0, 0]) - 0.05 + 0.01) + 1.0) + teacher

    value, gradient = jax.jit(jax.value_and_grad(total))(once.state.params["student"])
    assert float(once.metrics["loss"][0]) == pytest.approx(float(value), rel=1e-5)
    assert float(once.metrics["bias_critic/multiplier"][0]) > 1.5
    close(once.moved(), gradient)


def test_heads_for_the_groups_learn_from_their_own_images(make_task, make_batch):
    task = make_task(("cross_entropy", "ckd"), group_heads=2)
    batch = make_batch()
    batch["group"][:3] = -1
    once = Once(task, batch)
    label, group = once.batch["label"], once.batch["group"]

    def total(params):
        outputs = once.outputs(params)
        summed = outputs.group_logits[:, 0] + outputs.group_logits[:, 1]
        own = jnp.where((group == 0)[:, None], outputs.group_logits[:, 0], outputs.group_logits[:, 1])
        own = jnp.where((group < 0)[:, None], summed, own)
        labels = optax.softmax_cross_entropy_with_integer_labels(own, label).mean()
        return labels + 0.9 * ckd.kl_divergence(summed, once.teacher.logits, 4.0).mean()

    close(once.moved(), jax.jit(jax.grad(total))(once.state.params["student"]))
    # Evaluated, such a student classifies by the sum.
    outputs = jax.jit(task.student.apply)(once.state.student_variables(), once.images)
    np.testing.assert_allclose(outputs.logits, outputs.group_logits.sum(axis=1), rtol=1e-6)


def test_balanced_labels_weigh_each_image_by_its_cell(make_task, make_batch):
    task = make_task(("cross_entropy",), options={"cross_entropy": {"balanced": True}})
    batch = make_batch()
    batch["group"][:3] = -1
    once = Once(task, batch)
    counts = np.array([[90, 10, 90, 10], [10, 90, 10, 90]])
    weight = np.where(batch["group"] < 0, 1.0, (100 / (2 * counts))[batch["group"], batch["label"]])

    def total(params):
        nats = optax.softmax_cross_entropy_with_integer_labels(once.outputs(params).logits, batch["label"])
        return (jnp.asarray(weight, jnp.float32) * nats).mean()

    close(once.moved(), jax.jit(jax.grad(total))(once.state.params["student"]))


# The objectives that debias, their options, and the number of heads.
MANY = {
    "adversary, mfd and balanced labels": (("adversary", "mfd"), {"cross_entropy": {"balanced": True}}, 0),
    "ratio": (("adversary",), {"adversary": {"lambda_mode": "ratio"}}, 0),
    "projection": (("adversary",), {"adversary": {"projection": True, "steps": 2}}, 0),
    "bias_critic and heads": (("bias_critic",), {}, 3),
}


@pytest.mark.parametrize("way", MANY)
def test_three_groups_some_of_them_unknown(make_task, make_batch, way):
    own, options, heads = MANY[way]
    names = ("cross_entropy", "ckd", *own)
    counts = np.array([[50, 10, 60, 0], [10, 50, 10, 60], [20, 20, 10, 10]])
    task = make_task(names, options=options, group_heads=heads, counts=counts)
    state, step = task.compiled_init(), task.compiled_step
    for seed in range(2):
        batch = make_batch(seed)
        batch["group"] = np.array([-1, 0, 1, 2] * 4, np.int32)
        if seed:
            batch["group"][:] = -1  # a batch in which no group is known
        batch = {name: jnp.asarray(value) for name, value in batch.items()}
        state, metrics = step(state, task.teacher_variables, batch, task.weights)
        found = metrics.pop(COUNTS)[0]
        assert found.shape == (4, 4, 4)
        assert found.sum() == 16
        assert found[-1].sum() == (16 if seed else 4)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((metrics, state.params)))
