"""The compiled step: what it must leave alone, what it must change, on one device and on eight."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fairkd_jax.data.augment import Augmentation, augment
from fairkd_jax.engine.population import make_population_step
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.engine.state import rng_key
from fairkd_jax.engine.train_step import init_state, make_train_step
from fairkd_jax.models import EfficientNet
from fairkd_jax.objectives import TaskInfo, ckd, create_objective, rkd
from fairkd_jax.objectives.mlp import MLP
from tests.models.toy import STEM

PLAIN = ("cross_entropy", "ckd", "rkd_distance", "rkd_angle")


def ramp(at):
    """Lambda's factor at a step of the whole task."""
    return 2 / (1 + np.exp(-10 * (at / 20 - 0.49) / 0.51)) - 1


def largest_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def batches(make_batch):
    return [make_batch(seed) for seed in range(4)]


def test_lambda_zero_is_the_undebiased_student_bit_for_bit(whole, make_task, batches):
    clipped = {"student": {"max_norm": 0.5}}
    zero, history = whole.run(batches, {"adversary": 0.0}, at=10, **clipped)
    # An adversary that learns something else entirely.
    still, _ = whole.run(batches, {"adversary": 0.0}, at=10, adversary={"learning_rate": 0.0}, **clipped)
    assert largest_difference(zero.params["adversary"], still.params["adversary"]) > 1e-5
    chex.assert_trees_all_equal(zero.params["student"], still.params["student"])
    chex.assert_trees_all_equal(zero.ema, still.ema)
    assert min(metrics["student/gradient_norm"][0] for metrics in history) > 0.5  # all of them are clipped
    # And another program that has no adversary at all.
    clip = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.01))
    task = make_task(PLAIN, optimizers={"student": clip}, ema_decay=0.9)
    step, without = task.compiled_step, task.compiled_init().replace(step=jnp.int32(10))
    for batch in batches:
        without, _ = step(without, task.teacher_variables, batch, task.weights)
    assert largest_difference(zero.params["student"], without.params["student"]) < 1e-6


def test_lambda_acts_after_the_warmup_only(whole, batches):
    """The warmup ends before step 10 of 20."""
    plain, plain_history = whole.run(batches, {"adversary": 0.0}, at=7)
    debiased, history = whole.run(batches, {"adversary": 20.0}, at=7)
    strengths = [metrics["adversary/strength"][0] for metrics in history]
    np.testing.assert_allclose(strengths[:3], 0.0, atol=1e-6)
    assert strengths[3] == pytest.approx(20 * ramp(10), rel=1e-5)
    assert history[2]["loss"] == plain_history[2]["loss"]
    assert largest_difference(plain.params["student"], debiased.params["student"]) > 1e-4
    # The adversary's own learning does not know lambda: until the student differs, it is the same.
    assert history[3]["adversary/loss"] == plain_history[3]["adversary/loss"]


def test_one_adversary_step_lowers_its_own_loss(whole, batches):
    frozen = {"student": {"learning_rate": 0.0}, "adversary": {"learning_rate": 0.05}}
    _, history = whole.run(batches[:1] * 5, again=True, **frozen)
    losses = [metrics["adversary/loss"][0] for metrics in history]
    assert np.all(np.diff(losses) < 0)


def test_the_student_moves_against_the_adversary(whole, batches):
    """Descending the reversed gradient alone makes the adversary's loss grow."""
    weights = dict.fromkeys(PLAIN, 0.0) | {"adversary": 50.0}
    rates = {"student": {"learning_rate": 1e-3}, "adversary": {"learning_rate": 0.0}}
    _, history = whole.run(batches[:1] * 6, weights, at=14, again=True, **rates)
    losses = [metrics["adversary/loss"][0] for metrics in history]
    assert np.all(np.diff(losses) > 0)


def test_one_device_and_eight_agree(whole, make_batch):
    batches = [make_batch(seed) for seed in range(20)]
    alone, alone_history = whole.run(batches)
    together, history = whole.run(batches, mesh=make_mesh(jax.devices()))
    for name in ("loss", "cross_entropy/loss", "rkd_distance/loss", "rkd_angle/loss", "adversary/loss"):
        assert history[-1][name][0] == pytest.approx(alone_history[-1][name][0], rel=1e-4)
    assert largest_difference(alone.params, together.params) < 1e-5
    assert largest_difference(alone.batch_stats, together.batch_stats) < 1e-4


def test_a_step_is_a_function_of_seed_and_step_alone(whole, batches):
    one, _ = whole.run(batches)
    other, _ = whole.run(batches, seed=1)
    again = whole.start()
    for batch in batches:  # by a program that was traced for itself
        again, _ = whole.compiled_step(again, whole.teacher_variables, batch, whole.weights)
    chex.assert_trees_all_equal(one, jax.device_get(again))
    assert largest_difference(one.params["student"], other.params["student"]) > 1e-3


def test_every_group_moves_but_the_teacher_gets_no_gradient(whole, make_batch):
    state = whole.start(at=14)
    after, (metrics,) = whole.run([make_batch()], at=14)
    for group in ("student", "adversary"):
        assert metrics[f"{group}/gradient_norm"][0] > 0
        chex.assert_trees_all_equal_shapes_and_dtypes(state.params[group], after.params[group])
        assert largest_difference(state.params[group], after.params[group]) > 0
    batch = {name: jnp.asarray(value) for name, value in make_batch().items()}

    def loss(teacher_variables):
        _, metrics = whole.step(state, teacher_variables, batch, whole.weights)
        return metrics["loss"][0]

    gradient = jax.jit(jax.grad(loss))(whole.teacher_variables)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_gradient_is_that_of_the_weighted_sum(whole, make_batch):
    """Differentiating at the outputs and pulling back once equals differentiating the whole sum."""
    at = 13
    state = whole.start(at=at)
    batch = {name: jnp.asarray(value) for name, value in make_batch().items()}
    label, group = batch["label"], batch["group"]
    reader, table = MLP((128, 128), 2), state.objective_state["adversary"]["weights"]

    def total(params):
        key = rng_key(0, "augment", at)
        images = augment(key, batch["image"], Augmentation(flip=True), size=batch["image"].shape[1])
        teacher = whole.teacher.apply(whole.teacher_variables, images)
        outputs, _ = whole.student.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng_key(0, "dropout", at)},
        )
        features = jnp.concatenate([outputs.embedding, jax.nn.one_hot(label, 4)], axis=1)
        nats = optax.softmax_cross_entropy_with_integer_labels(
            reader.apply({"params": state.params["adversary"]}, features), group
        )
        weight = table[group, label]
        return (
            optax.softmax_cross_entropy_with_integer_labels(outputs.logits, label).mean()
            + 0.9 * ckd.kl_divergence(outputs.logits, teacher.logits, 4.0).mean()
            + 25 * rkd.distance_loss(outputs.embedding, teacher.embedding)
            + 50 * rkd.angle_loss(outputs.embedding, teacher.embedding)
            - ramp(at) * (weight * nats).sum() / weight.sum()
        )

    expected = jax.jit(jax.grad(total))(state.params["student"])
    after, _ = whole.run([make_batch()], at=at)
    moved = jax.tree.map(lambda a, b: (b - a) / 0.01, after.params["student"], state.params["student"])
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert largest_difference(expected, moved) < 1e-4 * scale


@pytest.mark.parametrize("source", ["embedding", "logits"])
def test_the_gradient_ratio_counts_what_comes_through_the_head(make_task, make_batch, source):
    """Cross-entropy, and an adversary on the logits, pull on the embedding through the head alone."""
    options = {"adversary": {"warmup": 0.0, "source": source}}
    task = make_task(("cross_entropy", "ckd", "adversary"), options=options, rate=0.0)
    state = task.compiled_init().replace(step=jnp.int32(7))
    batch = {name: jnp.asarray(value) for name, value in make_batch().items()}
    variables = {"params": state.params["student"], "batch_stats": state.batch_stats}

    @jax.jit
    def seen(pixels):
        images = augment(
            rng_key(0, "augment", 7), pixels, Augmentation(flip=True), size=batch["image"].shape[1]
        )
        outputs, _ = task.student.apply(variables, images, train=True, mutable=["batch_stats"])
        return outputs, task.teacher.apply(task.teacher_variables, images)

    outputs, teacher = seen(batch["image"])
    head = state.params["student"]["classifier"]
    reader, table = MLP((128, 128), 2), state.objective_state["adversary"]["weights"]

    def taught(embedding):
        logits = embedding @ head["kernel"] + head["bias"][None]
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return nats.mean() + 0.9 * ckd.kl_divergence(logits, teacher.logits, 4.0).mean()

    def pulled(embedding):
        read = embedding if source == "embedding" else embedding @ head["kernel"] + head["bias"][None]
        features = jnp.concatenate([read, jax.nn.one_hot(batch["label"], 4)], axis=1)
        logits = reader.apply({"params": state.params["adversary"]}, features)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch["group"])
        weight = table[batch["group"], batch["label"]]
        return (2 / (1 + np.exp(-10 * 7 / 20)) - 1) * (weight * nats).sum() / weight.sum()

    norms = [np.linalg.norm(jax.jit(jax.grad(f))(outputs.embedding)) for f in (pulled, taught)]
    _, metrics = task.compiled_step(state, task.teacher_variables, batch, task.weights)
    np.testing.assert_allclose(metrics["gradient_ratio"], norms, rtol=1e-3)


def test_the_average_follows_the_student(whole, batches):
    """With the decay that was asked for, and more quickly in the first steps."""
    for at, decay in ((0, 1 / 10), (1000, 0.9)):
        first = whole.start(at=at)
        state, _ = whole.run(batches[:1], at=at)
        expected = jax.tree.map(
            lambda old, new, decay=decay: old + (1 - decay) * (new - old),
            first.params["student"],
            state.params["student"],
        )
        chex.assert_trees_all_close(state.ema["params"], expected, rtol=1e-5, atol=1e-7)
        assert state.student_variables()["params"] is state.ema["params"]


def test_random_keys_differ_by_seed_purpose_and_step():
    keys = {
        tuple(jax.random.key_data(rng_key(seed, purpose, step)).tolist())
        for seed in (0, 1)
        for purpose in ("dropout", "augment")
        for step in (0, 1)
    }
    assert len(keys) == 8


def test_runs_of_every_seed_see_the_same_images(make_batch):
    """Student and teacher augment by the seed of the data and the step, whatever the run's own seed is."""
    model = EfficientNet(STEM, num_classes=4)
    names = ("cross_entropy", "ckd")
    common = {
        "student": model,
        "objectives": {name: create_objective(name) for name in names},
        "optimizers": {"student": optax.sgd(0.1)},
    }
    info = TaskInfo(4, 2, STEM.head, STEM.head, np.ones((2, 4), int))
    shapes = jax.eval_shape(lambda: init_state(**common, info=info, image_size=16, seed=0))
    batch = {name: jnp.asarray(value) for name, value in make_batch().items()}

    def keys_of(data_seed):
        keys = []

        def seen(key, images):
            keys.append(jax.random.key_data(key))
            return images / 255.0

        step = make_train_step(
            **common,
            teacher=model,
            augment=seen,
            augment_for_teacher=seen,
            num_groups=2,
            data_seed=data_seed,
            total_steps=20,
            steps_per_epoch=5.0,
        )

        @jax.jit
        def at(seed, number):
            blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            teacher = {"params": blank.params["student"], "batch_stats": blank.batch_stats}
            step(blank.replace(seed=seed, step=number), teacher, batch, dict.fromkeys(names, jnp.ones(())))
            return jnp.stack(keys)

        return {
            (seed, number): np.asarray(at(jnp.uint32(seed), jnp.int32(number))).tolist()
            for seed in (0, 1, 5)
            for number in (0, 3)
        }

    found = [keys_of(data_seed) for data_seed in (0, 5)]
    for keys in found:
        for (_, number), (students, teachers) in keys.items():
            assert students == teachers == keys[0, number][0]
    assert len({tuple(keys[0, number][0]) for keys in found for number in (0, 3)}) == 4


def test_a_member_of_a_population_is_a_lone_student(whole, make_batch):
    """With the losses, dropout and stochastic depth of its own seed, after twenty steps of SGD."""
    weights = [{"adversary": 0.5}, {"adversary": 2.0}, {"ckd": 0.3}]
    batches = [make_batch(seed) for seed in range(20)]
    together = jax.jit(make_population_step(whole.step))
    states = [whole.start(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states).replace(step=states[0].step)
    every = [whole.weights | {k: jnp.float32(v) for k, v in own.items()} for own in weights]
    stacked_weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)
    for batch in batches:
        stacked, metrics = together(stacked, whole.teacher_variables, batch, stacked_weights)
    assert stacked.step == 20
    for member, own in enumerate(weights):
        state, history = whole.run(batches, own, seed=member)
        for name in ("cross_entropy/loss", "rkd_angle/loss", "adversary/loss"):
            np.testing.assert_allclose(metrics[name][0][member], history[-1][name][0], rtol=1e-4, atol=1e-4)
        jax.tree.map(
            lambda a, b, member=member: np.testing.assert_allclose(a[member], b, atol=1e-4),
            (stacked.params, stacked.batch_stats),
            (state.params, state.batch_stats),
        )


def test_a_population_asks_the_teacher_once(make_task, make_batch):
    """The teacher's share of the operations does not grow with the members."""
    task = make_task(("cross_entropy", "ckd"))
    batch, teacher = make_batch(), task.teacher_variables

    def operations(members, known):
        state = jax.eval_shape(lambda: jax.vmap(lambda _: task.init())(jnp.arange(members)))
        state = state.replace(step=jax.ShapeDtypeStruct((), jnp.int32))
        weights = {name: jax.ShapeDtypeStruct((members,), jnp.float32) for name in task.weights}
        step = make_population_step(task.step)
        return jax.jit(step).lower(state, known, batch, weights).cost_analysis()["flops"]

    alone = jax.jit(task.teacher.apply).lower(teacher, jnp.zeros((16, 16, 16, 3))).cost_analysis()["flops"]
    one, four = operations(1, teacher), operations(4, teacher)
    assert four - one < 3 * (one - alone) * 1.05
