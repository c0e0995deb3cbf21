"""Is the method what it claims? A cue that gives the group away, and a group that nothing gives away."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

STEPS, SIZE, CLASSES = 400, 16, 4


def images_of(rng, label, group):
    """The class is a bright quarter of the image, drowned in noise; the group is a patch in the middle."""
    n = len(label)
    image = rng.normal(90, 40, (n, SIZE, SIZE, 3))
    for i, (y, g) in enumerate(zip(label, group, strict=True)):
        top, left = SIZE // 2 * (y // 2), SIZE // 2 * (y % 2)
        image[i, top : top + 8, left : left + 8] += 15
        if g == 1:
            image[i, 5:11, 5:11, 0] += 160
    return np.clip(image, 0, 255).astype(np.uint8)


def batch_of(rng, size=32, skew=0.8):
    """Classes 0 and 1 are mostly of group 0, the others mostly of group 1."""
    label = rng.integers(0, CLASSES, size)
    group = (rng.uniform(size=size) < np.where(label < 2, 1 - skew, skew)).astype(int)
    return {
        "image": images_of(rng, label, group),
        "label": label.astype(np.int32),
        "group": group.astype(np.int32),
        "index": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, np.float32),
    }


@functools.cache
def batches_of(seed, placebo):
    """Those of a whole training, stacked; the group may be shuffled."""
    rng, shuffle = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    batches = [batch_of(rng) for _ in range(STEPS)]
    for batch in batches if placebo else ():
        batch["group"] = shuffled_within_class(shuffle, batch["label"], batch["group"])
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


pytestmark = pytest.mark.usefixtures("optimized")  # thousands of steps run here


@pytest.fixture(scope="module")
def student(make_task):
    """Trains with a lambda and a seed; the group may be shuffled. One program serves all."""
    task = make_task(
        ("cross_entropy", "adversary"),
        optimizers={"student": optax.adam(1e-3), "adversary": optax.adam(1e-2)},
        total_steps=STEPS,
        flip=False,
        rate=0.0,
    )
    init = task.compiled_init
    predict = jax.jit(
        lambda state, image: task.student.apply(
            state.student_variables(), (image / 255.0 - 0.45) / 0.225, train=False
        )
    )

    @jax.jit
    def learn(state, batches, weights):
        def update(state, batch):
            state, metrics = task.step(state, task.teacher_variables, batch, weights)
            return state, metrics["adversary/accuracy"]

        return jax.lax.scan(update, state, batches)

    @functools.cache
    def train(strength, seed=0, placebo=False):
        stacked = batches_of(seed, placebo)
        weights = {"cross_entropy": jnp.float32(1), "adversary": jnp.float32(strength)}
        state, accuracy = learn(init().replace(seed=jnp.uint32(seed)), stacked, weights)
        right, known = np.sum(np.array(accuracy)[:, -30:], axis=1)
        return (lambda image: predict(state, jnp.float32(image))), right / known

    return train


def shuffled_within_class(rng, label, group):
    group = group.copy()
    for c in range(CLASSES):
        rows = np.flatnonzero(label == c)
        group[rows] = group[rng.permutation(rows)]
    return group


def probe_accuracy(predict):
    """How well a fresh linear probe reads the group from the embedding, at balanced classes and groups."""
    rng = np.random.default_rng(99)
    label, group = np.arange(800) % CLASSES, (np.arange(800) // CLASSES) % 2
    embedding = np.asarray(predict(images_of(rng, label, group)).embedding)
    scale = embedding[:400].std(axis=0) + 1e-6
    probe = LogisticRegression(max_iter=2000).fit(embedding[:400] / scale, group[:400])
    return probe.score(embedding[400:] / scale, group[400:])


def mean_abs_gap(predict, seed):
    rng = np.random.default_rng(1000 + seed)
    label, group = np.arange(1600) % CLASSES, (np.arange(1600) // CLASSES) % 2
    right = np.asarray(predict(images_of(rng, label, group)).logits).argmax(axis=1) == label
    cells = [[right[(label == c) & (group == g)].mean() for g in (0, 1)] for c in range(CLASSES)]
    return np.mean([abs(a - b) for a, b in cells])


@pytest.mark.slow
def test_positive_control(student):
    """A patch gives the group away: read at lambda 0, and less and less as lambda rises."""
    plain, adversary = student(0.0)
    assert adversary > 0.95
    probes = [probe_accuracy(predict) for predict in (plain, student(1.0)[0], student(3.0)[0])]
    assert probes[0] > 0.95
    assert probes[0] > probes[1] > probes[2]
    assert probes[2] < 0.85


@pytest.mark.slow
def test_the_adversary_lowers_a_disparity_that_is_there(student):
    for seed in range(3):
        plain, debiased = (mean_abs_gap(student(strength, seed)[0], seed) for strength in (0.0, 3.0))
        assert plain > 0.4
        assert debiased < 0.6 * plain


@pytest.mark.slow
def test_placebo(student):
    """A group shuffled within its class tells the adversary nothing, and debiases nothing."""
    change = []
    for seed in range(4):
        plain, debiased = (
            mean_abs_gap(student(strength, seed, placebo=True)[0], seed) for strength in (0.0, 3.0)
        )
        change.append(debiased - plain)
    noise = np.std(change, ddof=1) / np.sqrt(len(change))
    # Student's t at 3 degrees of freedom, one-sided 2.5 %: not lower beyond what seeds do by themselves.
    assert np.mean(change) > -3.18 * noise
