"""The count tensor: what is counted, where, and that sharding and masks change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fairkd_jax.fairness import group_counts

GROUPS, CLASSES, BATCH = 2, 3, 16

jitted = jax.jit(group_counts, static_argnames=("num_groups", "num_classes"))


def count(group, label, prediction, mask):
    return jitted(group, label, prediction, mask, num_groups=GROUPS, num_classes=CLASSES)


def sample(seed, batch=BATCH):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(-1, GROUPS, batch, dtype=np.int32),
        rng.integers(0, CLASSES, batch, dtype=np.int32),
        rng.integers(0, CLASSES, batch, dtype=np.int32),
        rng.integers(0, 2, batch).astype(np.float32),
    )


def loop_counts(group, label, prediction, mask):
    counts = np.zeros((GROUPS + 1, CLASSES, CLASSES), np.int64)
    for g, y, p, m in zip(group, label, prediction, mask, strict=True):
        if m:
            counts[GROUPS if g == -1 else g, y, p] += 1
    return counts


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_equals_a_loop_over_examples(seed):
    batch = sample(seed)
    counts = count(*batch)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, loop_counts(*batch))


def test_padding_rows_may_hold_anything():
    group, label, prediction, _ = sample(0)
    mask = np.ones(BATCH, np.float32)
    mask[5:] = 0.0
    label[5:], prediction[5:], group[5:] = -1, CLASSES + 4, 7
    np.testing.assert_array_equal(
        count(group, label, prediction, mask), loop_counts(group, label, prediction, mask)
    )


def test_classes_out_of_range_are_not_counted_elsewhere():
    label, prediction = np.int32([-1, 0, CLASSES, 1]), np.int32([0, -1, 0, 1])
    counts = count(np.zeros(4, np.int32), label, prediction, np.ones(4, np.float32))
    assert counts.sum() == 1
    assert counts[0, 1, 1] == 1


def test_counts_of_batches_add_up():
    batch = sample(1)
    halves = count(*(a[:8] for a in batch)) + count(*(a[8:] for a in batch))
    np.testing.assert_array_equal(halves, count(*batch))


def test_vmap_over_models():
    group, label, _, mask = sample(2)
    predictions = np.stack([sample(seed)[2] for seed in (3, 4, 5)])
    stacked = jax.vmap(count, in_axes=(None, None, 0, None))(group, label, predictions, mask)
    for counts, prediction in zip(stacked, predictions, strict=True):
        np.testing.assert_array_equal(counts, loop_counts(group, label, prediction, mask))


def test_sharded_batch_gives_the_same_counts():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    batch = sample(6, batch=64)
    counts = count(*(jax.device_put(a, rows) for a in batch))
    np.testing.assert_array_equal(counts, loop_counts(*batch))


def test_a_sharded_padded_last_batch_of_several_models():
    """11 examples on eight devices, five of which hold padding alone, with whatever stands there."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    group, label, _, mask = sample(7, batch=32)
    group[:3] = -1
    mask[:], mask[:11] = 0.0, 1.0
    group[11:], label[11:] = GROUPS - 1, -1
    predictions = np.stack([sample(seed, batch=32)[2] for seed in (8, 9)])
    predictions[:, 11:] = CLASSES + 1

    def of_all(*batch):
        return jax.vmap(count, in_axes=(None, None, 0, None))(*batch)

    specs = [PartitionSpec("data")] * 2 + [PartitionSpec(None, "data"), PartitionSpec("data")]
    batch = (group, label, predictions, mask)
    placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(batch, specs, strict=True)]
    counts = jax.jit(of_all)(*placed)
    assert counts.dtype == jnp.int32
    assert counts.shape == (2, GROUPS + 1, CLASSES, CLASSES)
    for found, prediction in zip(counts, predictions, strict=True):
        np.testing.assert_array_equal(found, loop_counts(group, label, prediction, mask))
        assert found.sum() == 11
        assert found[GROUPS].sum() == np.sum(group[:11] == -1)
