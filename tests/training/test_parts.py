"""The small parts of training: optimizers, sharding, writers, checkpoints."""

import contextlib
import functools
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.engine.optimizers import make_optimizer, make_schedule
from fairkd_jax.engine.sharding import (
    check_divides,
    make_batch_sharding,
    make_member_sharding,
    make_mesh,
    make_replicated_sharding,
)
from fairkd_jax.engine.state import TrainState
from fairkd_jax.errors import UsageError
from fairkd_jax.files import make_jsonable, save_arrays, write_text
from fairkd_jax.runs.checkpoint import Checkpoints
from fairkd_jax.runs.folder import config_diff
from fairkd_jax.training import build
from fairkd_jax.training.start import restore_newest
from tests.limits import files_no_larger_than

PARAMS = {"conv": {"kernel": jnp.ones((2, 2))}, "bn": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_leaves_biases_and_norms_alone(name):
    schedule = make_schedule("constant", learning_rate=0.1, warmup_steps=0, total_steps=1)
    optimizer = make_optimizer(name, schedule, weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, PARAMS), optimizer.init(PARAMS), PARAMS)
    assert np.all(updates["conv"]["kernel"] < 0)
    assert not any(leaf.any() for leaf in updates["bn"].values())


def test_clipping_bounds_the_whole_groups_gradient():
    schedule = make_schedule("constant", learning_rate=1.0, warmup_steps=0, total_steps=1)
    optimizer = make_optimizer("sgd", schedule, momentum=0.0, clip_norm=0.5)
    updates, _ = optimizer.update(jax.tree.map(lambda x: 100 * x, PARAMS), optimizer.init(PARAMS), PARAMS)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(updates)))
    assert norm == pytest.approx(0.5, rel=1e-5)


def test_the_cosine_schedule_rises_and_falls_to_zero():
    schedule = make_schedule("cosine", learning_rate=2.0, warmup_steps=4, total_steps=20)
    rates = [float(schedule(step)) for step in range(21)]
    np.testing.assert_allclose(rates[:4], [0.5, 1.0, 1.5, 2.0])
    expected = [1 + np.cos(np.pi * step / 16) for step in range(17)]
    np.testing.assert_allclose(rates[4:], expected, atol=1e-6)
    constant = make_schedule("constant", learning_rate=2.0, warmup_steps=2, total_steps=9)
    assert [float(constant(step)) for step in (0, 1, 2, 8)] == [1.0, 2.0, 2.0, 2.0]


def test_unusual_optimizer_settings_are_refused():
    schedule = make_schedule("constant", learning_rate=1.0, warmup_steps=0, total_steps=1)
    with pytest.raises(UsageError, match="must not be negative"):
        make_optimizer("sgd", schedule, clip_norm=-1.0)


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_evaluated_and_kept_is_the_average_where_there_is_one(averaged):
    last, average = ({"params": {"w": f"{kind} w"}, "batch_stats": {"m": f"{kind} m"}} for kind in "ab")
    state = TrainState(
        step=3,
        seed=0,
        params={"student": last["params"], "adversary": {"w": "c"}},
        batch_stats=last["batch_stats"],
        objective_state={},
        opt_state={},
        ema=average if averaged else {},
    )
    assert state.student_variables() == (average if averaged else last)


def test_a_mesh_splits_the_batch_and_copies_the_rest():
    mesh = make_mesh()
    assert (mesh.size, mesh.axis_names) == (8, ("data", "population"))
    assert make_batch_sharding(mesh).shard_shape((16, 3)) == (2, 3)
    assert make_replicated_sharding(mesh).shard_shape((16, 3)) == (16, 3)
    both = make_mesh(members=6)  # two devices for the members, four for a batch
    assert dict(both.shape) == {"data": 4, "population": 2}
    assert make_batch_sharding(both).shard_shape((16, 3)) == (4, 3)
    assert make_member_sharding(both).shard_shape((6, 3)) == (3, 3)
    check_divides("batch_size", 24, mesh)
    with pytest.raises(UsageError, match="batch_size=5 does not divide by 8 devices; use 8"):
        check_divides("batch_size", 5, mesh)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \udc80")
    assert path.read_text() == "old"


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.parametrize("write", [write_text, save_arrays])
def test_a_disk_that_is_full_leaves_what_was_there(write, old, tmp_path):
    path = tmp_path / "file"
    if old:
        path.write_text(old)
    noise = np.random.default_rng(0).integers(ord(" "), ord("~"), 100_000).astype(np.uint8)
    content = {"noise": noise} if write is save_arrays else noise.tobytes().decode("ascii")
    with files_no_larger_than(4096), pytest.raises(OSError, match="File too large"):
        write(path, content)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({"file": old} if old else {})
    write(path, content)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    if write is save_arrays:
        np.testing.assert_array_equal(np.load(path)["noise"], noise)
    else:
        assert path.read_text() == content


def test_jsonable_replaces_what_json_cannot_carry():
    assert make_jsonable({"a": [float("inf"), (1, 2.0)], 3: {"b": float("nan")}}) == {
        "a": [None, [1, 2.0]],
        "3": {"b": None},
    }


def test_differences_name_what_makes_another_run():
    old = {"epochs": 2, "log_every_steps": 1, "optimizer": {"name": "sgd"}, "gone": 1}
    assert config_diff(old, old | {"epochs": 3, "log_every_steps": 5}) == []
    new = {"epochs": 1, "log_every_steps": 1, "optimizer": {"name": "adamw"}, "new": None}
    assert config_diff(old, new) == [
        "epochs (was 2, now 1)",
        "gone (was 1, now None)",
        "optimizer.name (was 'sgd', now 'adamw')",
    ]


def shapes(tree):
    everywhere = make_replicated_sharding(make_mesh())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree)


def test_a_state_that_eight_devices_hold_goes_back_to_all_of_them(tmp_path):
    mesh = make_mesh()
    arrays = {
        "copies": jax.device_put(np.arange(16.0, dtype=np.float32), make_replicated_sharding(mesh)),
        "parts": jax.device_put(np.arange(16, dtype=np.int32), make_batch_sharding(mesh)),
        "number": np.float32(3.0),
    }
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(1, arrays, {"copies": arrays["copies"]}, {})
    found = checkpoints.restore_state(shapes(arrays), 1)
    jax.tree.map(np.testing.assert_array_equal, found, arrays)
    assert all(array.sharding.num_devices == 8 and array.is_fully_replicated for array in found.values())


def test_checkpoints_keep_the_last_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.last_step() is checkpoints.best_step() is checkpoints.best_scores() is None
    for step in (1, 2, 3):
        student = {"params": {"w": jnp.full(3, step, jnp.float32)}}
        checkpoints.save_last(step, student | {"step": jnp.int32(step)}, student, {})
        if step == 2:
            checkpoints.save_best(step, student, {"accuracy": 0.5, "disparity": float("nan")})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.last_step(), checkpoints.best_step()) == (3, 2)
    assert checkpoints.best_scores()["accuracy"] == 0.5
    state = checkpoints.restore_state(shapes(student | {"step": jnp.int32(0)}), 3)
    assert state["step"] == 3
    assert state["step"].sharding.is_fully_replicated
    for which, expected in (("best", 2), ("last", 3), ("2", 2)):
        step, restored = checkpoints.restore_student(which, shapes(student))
        assert step == expected
        np.testing.assert_array_equal(restored["params"]["w"], expected)
    with pytest.raises(UsageError, match="no checkpoint '7'"):
        checkpoints.restore_student("7", shapes(student))


def save_steps(folder, steps, **options):
    """Saves checkpoints whose arrays are their steps; returns a student as a target."""
    with contextlib.closing(Checkpoints(folder, training=True, **options)) as checkpoints:
        for step in steps:
            student = {"params": {"w": jnp.full(3, step, jnp.float32)}}
            checkpoints.save_last(step, student, student, {})
    return shapes(student)


def test_the_newest_checkpoints_stay_and_those_of_some_epochs_for_good(tmp_path):
    # Epochs of 2.5 steps: every second one ends with the steps 5, 10 and 15.
    is_kept = functools.partial(build._is_kept, every=5.0)
    target = save_steps(tmp_path, range(1, 14), keep=2, is_kept=is_kept)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == {5, 10, 12, 13}
    step, student = checkpoints.restore_student("5", target)
    assert step == 5
    np.testing.assert_array_equal(student["params"]["w"], 5)
    with pytest.raises(UsageError, match=r"can be last \(step 13, 12, 10, 5\)"):
        checkpoints.restore_student("11", target)


@pytest.mark.parametrize(
    ("every", "kept"), [(0.0, []), (3.5, [4, 7, 11]), (4.0, [4, 8, 12]), (0.5, list(range(1, 13)))]
)
def test_the_steps_that_end_an_epoch(every, kept):
    assert [step for step in range(1, 13) if build._is_kept(step, every=every)] == kept


def damage(folder, step):
    for file in (folder / "checkpoints" / "last" / str(step)).rglob("*"):
        if file.is_file() and file.name != "SHA256SUMS":
            file.write_bytes(b"cut short")


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    target = save_steps(tmp_path, (1, 2, 3), keep=3)
    damage(tmp_path, 3)
    with contextlib.closing(Checkpoints(tmp_path, keep=3, training=True)) as checkpoints:
        step, student = checkpoints.restore_student("last", target)
        assert step == 2
        np.testing.assert_array_equal(student["params"]["w"], 2)
        (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert "last/3" in warning
        assert "changed since it was written" in warning
        assert warning.endswith("; step 2 is used instead")
        with pytest.raises(UsageError, match="has changed since it was written"):
            checkpoints.restore_student("3", target)
        # A training goes on from there, and saves the damaged step again.
        state, step = restore_newest([checkpoints], target, lambda states: states[0])
        assert (step, float(state["params"]["w"][0]), checkpoints.steps()) == (2, 2.0, {1, 2})
        checkpoints.save_last(3, student, student, {})
        assert checkpoints.steps() == {1, 2, 3}
        with pytest.raises(UsageError, match="does not fit"):  # and not another configuration's
            restore_newest([checkpoints], shapes({"v": jnp.zeros(3)}), lambda states: states[0])
        assert checkpoints.steps() == {1, 2, 3}
    for step in (1, 2, 3):
        damage(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UsageError, match=r"last/3/.* has changed"):
        restore_newest([checkpoints], target, lambda states: states[0])
    with pytest.raises(UsageError, match=r"last/3/.* has changed"):
        checkpoints.restore_student("last", target)
    assert checkpoints.steps() == {1, 2, 3}
    assert restore_newest([Checkpoints(tmp_path / "new")], target, lambda states: states[0]) == (None, 0)


@pytest.mark.parametrize("is_partly_deleted", [False, True])
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_looked_up_again(
    tmp_path, monkeypatch, caplog, is_partly_deleted
):
    target = save_steps(tmp_path, (1,))
    reader, read = Checkpoints(tmp_path), Checkpoints._restore

    def read_late(self, kind, step, item, target):
        if step < 4:  # faster than anybody reads
            save_steps(tmp_path, (step + 1,))
            if is_partly_deleted:
                old = tmp_path / "checkpoints" / "last" / str(step)
                shutil.copytree(old.with_name(str(step + 1)), old, dirs_exist_ok=True)
                shutil.rmtree(old / "student" / "d", ignore_errors=True)
                damage(tmp_path, step)
        return read(self, kind, step, item, target)

    monkeypatch.setattr(Checkpoints, "_restore", read_late)
    step, student = reader.restore_student("last", target)
    assert (step, float(student["params"]["w"][0])) == (4, 4.0)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("training", [False, True])
def test_who_reads_checkpoints_leaves_alone_what_another_writes(tmp_path, training):
    student = {"params": {"w": jnp.zeros(3)}}
    with contextlib.closing(Checkpoints(tmp_path, training=True)) as checkpoints:
        checkpoints.save_last(1, student, student, {})
    (step,) = (tmp_path / "checkpoints" / "last").glob("1")
    written = step.with_name("2.orbax-checkpoint-tmp")
    shutil.copytree(step, written)
    with contextlib.closing(Checkpoints(tmp_path, training=training)) as checkpoints:
        assert checkpoints.last_step() == 1
        deadline = time.monotonic() + (60.0 if training else 1.0)  # it is done in the background
        while written.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert written.exists() != training


@pytest.mark.parametrize(
    "wanted",
    [
        {"params": {"w": jnp.zeros(3, jnp.bfloat16)}},
        {"params": {"w": jnp.zeros(4)}},
        {"params": {"w": jnp.zeros(3), "b": jnp.zeros(3)}},
        {"params": {"v": jnp.zeros(3)}},
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, wanted):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(1, {"params": {"w": jnp.zeros(3)}}, {"accuracy": 0.0})
    with pytest.raises(UsageError, match=r"student does not fit .* params/"):
        checkpoints.restore_student("best", shapes(wanted))
