"""How processes of a run find one another, and what is wrong with what they are told."""

import jax
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.training import cluster


@pytest.fixture
def started(monkeypatch):
    """What jax.distributed is asked for; and no surroundings."""
    found = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: found.append(args))
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_process_alone_joins_nobody(started, monkeypatch):
    cluster.join()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "here")
    cluster.join()
    assert started == []
    assert cluster.agreed(True) is True


def test_others_are_told_or_found(started, monkeypatch):
    cluster.join("10.0.0.1:1234", 4, 3)
    cluster.join(detect=True)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    cluster.join()
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "first,second")
    cluster.join()
    assert started == [("10.0.0.1:1234", 4, 3), (), (), ()]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("10.0.0.1:1234",), "given together or not at all"),
        (("", 2, 0), "given together or not at all"),
        (("10.0.0.1:1234", 2, 2), "process_id=2 is none of 2 processes"),
    ],
)
def test_what_does_not_fit_together_is_refused(told, message, started):
    with pytest.raises(UsageError, match=message):
        cluster.join(*told)
    assert started == []


def test_others_that_do_not_answer_are_one_line(started, monkeypatch):
    def fails(*args):
        raise RuntimeError("DEADLINE_EXCEEDED: no answer\nmore lines")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(UsageError, match=r"do not find one another: DEADLINE_EXCEEDED: no answer$"):
        cluster.join("10.0.0.1:1234", 2, 1)
