"""Batches are functions of seed and step; evaluation sees each example once."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairkd_jax.data import split as split_module
from fairkd_jax.data.available_memory import read_available_bytes
from fairkd_jax.data.batches import iterate_eval_batches, iterate_train_batches
from fairkd_jax.data.pipeline import get_default_directory, open_dataset
from fairkd_jax.errors import UsageError

few = settings(max_examples=10, deadline=None)
batch_sizes = st.sampled_from([4, 8, 12, 100])


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def check_types(batch, size):
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "image": ((size, 8, 8, 3), "uint8"),
        "label": ((size,), "int32"),
        "group": ((size,), "int32"),
        "index": ((size,), "int32"),
        "mask": ((size,), "float32"),
    }


def test_batches_hold_what_the_split_holds(digits):
    split = digits.split("train")
    for batch in islice(iterate_train_batches(split, batch_size=16, seed=0), 3):
        check_types(batch, 16)
        np.testing.assert_array_equal(batch["mask"], 1)
        for row, index in enumerate(batch["index"]):
            example = split[index]
            for name, value in example.items():
                np.testing.assert_array_equal(batch[name][row], value)


@few
@given(seed=st.integers(0, 2**32 - 1), batch_size=batch_sizes, step=st.integers(0, 60))
def test_any_step_for_any_number_of_processes(digits, seed, batch_size, step):
    split = digits.split("val")
    whole = next(iterate_train_batches(split, batch_size=batch_size, seed=seed, start_step=step))
    skipped = next(islice(iterate_train_batches(split, batch_size=batch_size, seed=seed), step, None))
    assert_equal(whole, skipped)
    for count in (2, 4):
        parts = [
            next(
                iterate_train_batches(
                    split,
                    batch_size=batch_size,
                    seed=seed,
                    start_step=step,
                    process_index=process,
                    process_count=count,
                )
            )
            for process in range(count)
        ]
        assert_equal(joined(parts), whole)


@few
@given(seed=st.integers(0, 1000), batch_size=batch_sizes)
def test_each_epoch_is_a_permutation_of_its_own(digits, seed, batch_size):
    split = digits.split("val")
    n = len(split)
    steps = -(-3 * n // batch_size)
    order = joined(list(islice(iterate_train_batches(split, batch_size=batch_size, seed=seed), steps)))[
        "index"
    ]
    epochs = [order[k * n : (k + 1) * n] for k in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()


def test_seeds_differ(digits):
    split = digits.split("val")
    one, other = (next(iterate_train_batches(split, batch_size=100, seed=seed))["index"] for seed in (0, 1))
    assert (one != other).any()


@few
@given(
    batch_size=st.sampled_from([4, 8, 20, 100, 268, 272, 300]),
    count=st.sampled_from([1, 2, 4]),
    name=st.just("val"),
)
def test_evaluation_sees_each_example_once(digits, batch_size, count, name):
    split = digits.split(name)
    per_process = [
        list(iterate_eval_batches(split, batch_size=batch_size, process_index=process, process_count=count))
        for process in range(count)
    ]
    assert {len(batches) for batches in per_process} == {-(-len(split) // batch_size)}
    for batches in per_process:
        for batch in batches:
            check_types(batch, batch_size // count)
    whole = joined([joined(list(parts)) for parts in zip(*per_process, strict=True)])
    real = whole["mask"] == 1
    np.testing.assert_array_equal(np.flatnonzero(real), np.arange(len(split)))
    np.testing.assert_array_equal(whole["index"][real], np.arange(len(split)))
    np.testing.assert_array_equal(whole["image"][real], split.read_images())
    np.testing.assert_array_equal(whole["label"][real], split.labels)
    np.testing.assert_array_equal(whole["group"][real], split.groups)
    padding = {"mask": 0, "index": -1, "group": -1, "label": 0, "image": 0}
    for key, value in padding.items():
        np.testing.assert_array_equal(whole[key][~real], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 30, "process_count": 4},
            "batch_size=30 does not divide by 4 processes; use 28 or 32",
        ),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 270}, "batch_size=270 exceeds the 269 examples of val"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, "process_index=2"),
        ({"batch_size": 4, "seed": -1}, "seed -1"),
        ({"batch_size": 4, "start_step": -1}, "start_step=-1"),
    ],
)
def test_errors(digits, options, message):
    with pytest.raises(UsageError, match=message):
        iterate_train_batches(digits.split("val"), **{"seed": 0, **options})


def test_data_set_errors(digits, tmp_path):
    with pytest.raises(UsageError, match="unknown data set 'mnist'; use one of digits, manifest, utkface"):
        open_dataset("mnist", directory=tmp_path, size=8)
    with pytest.raises(UsageError, match="digits has no option 'tint'; its options are: skew, seed, noise"):
        open_dataset("digits", directory=tmp_path, size=8, tint="red")
    with pytest.raises(UsageError, match="size=0"):
        open_dataset("digits", directory=tmp_path, size=0)
    with pytest.raises(UsageError, match="unknown resize 'crop'"):
        open_dataset("digits", directory=tmp_path, size=8, resize="crop")
    with pytest.raises(UsageError, match="unknown cache 'gpu'"):
        open_dataset("digits", directory=tmp_path, size=8, cache="gpu")
    with pytest.raises(UsageError, match="no examples in split 'dev'; use one of train, val, test"):
        digits.split("dev")
    with pytest.raises(IndexError):
        digits.split("val")[269]


def test_cache_changes_nothing_but_speed(digits, monkeypatch):
    directory = digits.info.directory.rsplit("/", 3)[0]
    uncached = open_dataset("digits", directory=directory, size=8, cache="none").split("val")
    cached = digits.split("val")
    assert (cached.cache, uncached.cache) == ("host", "none")
    np.testing.assert_array_equal(cached.read_images(), uncached.read_images())
    np.testing.assert_array_equal(cached[7]["image"], uncached[7]["image"])
    assert_equal(*(next(iterate_train_batches(split, batch_size=8, seed=1)) for split in (cached, uncached)))
    need = 269 * 8 * 8 * 3
    little, enough = 4 * need, 4 * need + 4
    for device, host, expected in (
        (enough, enough, "device"),
        (little, enough, "host"),
        (little, little, "none"),
    ):
        monkeypatch.setattr(split_module, "read_available_device_bytes", lambda free=device: free)
        monkeypatch.setattr(split_module, "read_available_bytes", lambda free=host: free)
        automatic = open_dataset("digits", directory=directory, size=8).split("val")
        assert automatic.cache == expected
        assert automatic is not cached
    assert digits.split("val") is cached


def test_available_memory(tmp_path):
    assert read_available_bytes() > 0
    assert read_available_bytes(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 90 kB\nMemAvailable: 50 kB\n")
    assert read_available_bytes(tmp_path) == 50 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("20000\n")
    assert read_available_bytes(tmp_path) == 50 * 1024
    (group / "memory.max").write_text("30000\n")
    assert read_available_bytes(tmp_path) == 10000


def test_default_directory(monkeypatch):
    monkeypatch.setenv("FAIRKD_DATA", "/somewhere")
    assert str(get_default_directory()) == "/somewhere"
    monkeypatch.delenv("FAIRKD_DATA")
    assert get_default_directory().parts[-3:] == (".cache", "fairkd_jax", "datasets")
