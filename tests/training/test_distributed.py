"""How processes of a run find one another, what is wrong with what they are told, and a run of two."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import student
from fairkd_jax import distributed
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.training import stop, train
from tests.programs import ROOT, command, environment, run_program

TINY = {
    "student.architecture": "stem",
    "data.size": 16,
    "data.image_size": 16,
    "epochs": 5,
    "batch_size": 64,
    "log_every_steps": 1,
    "checkpoint_every_steps": 1000,
}


@pytest.fixture
def started(monkeypatch):
    """What jax.distributed is asked for; and no surroundings."""
    found = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: found.append(args))
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_process_alone_joins_nobody(started, monkeypatch):
    distributed.join_processes()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "here")
    distributed.join_processes()
    assert started == []
    assert distributed.broadcast_from_host0(True) is True


def test_others_are_told_or_found(started, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "127.0.0.1:{1}".format(*server.getsockname())
    distributed.join_processes(address, 4, 0)
    distributed.join_processes(detect=True)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.join_processes()
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "first,second")
    distributed.join_processes()
    assert started == [(address, 4, 0), (), (), ()]
    distributed.join_processes(detect=False)  # whatever the surroundings say
    assert len(started) == 4


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("10.0.0.1:1234",), "given together or not at all"),
        (("", 2, 0), "given together or not at all"),
        (("10.0.0.1:1234", 2, 2), "process_id=2 is none of 2 processes"),
        (("10.0.0.1", 2, 1), r"--coordinator=10\.0\.0\.1 is not HOST:PORT"),
        (("10.0.0.1:", 2, 1), "is not HOST:PORT"),
        (("10.0.0.1:65536", 2, 1), "is not HOST:PORT"),
    ],
)
def test_what_does_not_fit_together_is_refused(told, message, started):
    with pytest.raises(UsageError, match=message):
        distributed.join_processes(*told)
    assert started == []


def test_others_that_do_not_answer_are_one_line(started, monkeypatch):
    def fails(*args, **_):
        raise RuntimeError("DEADLINE_EXCEEDED: no answer\nmore lines")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(UsageError, match=r"do not find one another: DEADLINE_EXCEEDED: no answer$"):
        distributed.join_processes("127.0.0.1:29338", 2, 0)


LISTEN = """
import pathlib, sys
from fairkd_jax import distributed

distributed.join_processes(sys.argv[1], 1, 0)
lines = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]]
port = f":{int(sys.argv[1].rpartition(':')[2]):04X}"
print([words[1] for words in lines if words[1].endswith(port) and words[3] == "0A"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc lists what listens")
def test_process_0_listens_on_the_given_address_alone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "127.0.0.1:{1}".format(*server.getsockname())
    ended = run_program("-c", LISTEN, address)
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout.replace("'", '"'))
    assert found.partition(":")[0].endswith("0100007F")  # and not the zeros of every address


@pytest.mark.parametrize("address", ["203.0.113.1:1234", "nowhere.invalid:1"])
def test_an_address_where_process_0_cannot_listen_is_one_line(started, address):
    with pytest.raises(UsageError, match=f"process 0 cannot listen at {address} ") as refused:
        distributed.join_processes(address, 2, 0)
    assert "\n" not in str(refused.value)
    assert started == []


def test_a_process_0_that_is_not_there_is_one_line(started, monkeypatch):
    monkeypatch.setattr(distributed, "PATIENCE", 0.0)
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"process 0 does not answer at {address} .*; start it there"):
            distributed.join_processes(address, 2, 1)
        taken.listen()
        distributed.join_processes(address, 2, 1)
    assert started == [(address, 2, 1)]


@pytest.mark.parametrize(
    ("tasks", "place", "visible", "more", "own"),
    [
        ("8(x4)", "3", "0,1,2,3,4,5,6,7", {}, [3]),  # each sees all of its node's
        ("2", "1", "0,1,2,3", {}, [2, 3]),
        ("8", "3", "0", {"SLURM_GPUS_PER_TASK": "1"}, [0]),  # each sees its own
        ("1(x2)", "0", "0,1,2,3", {}, [0, 1, 2, 3]),
        ("4", "2", "0", {}, None),  # JAX has words for it
        ("4", "2", "", {}, None),  # no GPUs
        ("", "", "0,1", {}, None),  # no Slurm
    ],
)
def test_the_gpus_of_a_task(tasks, place, visible, more, own):
    surroundings = {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_LOCALID": place}
    assert distributed.find_own_gpus(surroundings | {"CUDA_VISIBLE_DEVICES": visible} | more) == own


def test_what_is_asked_during_the_last_step_is_not_forgotten(monkeypatch):
    """Of several processes: no other step brings it to them."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(stop, "max_over_hosts", lambda value: max(value, 15))  # what another one was told
    request = stop.StopRequest(make_mesh())
    assert request.signal is None
    request.sync()
    assert request.signal == signal.SIGTERM


@pytest.fixture
def start(data_directory):
    """Starts the two processes of a tiny run, with a device each; none outlives the test."""
    variables = environment(FAIRKD_DATA=data_directory, JAX_NUM_CPU_DEVICES=1)
    options = [f"--config.{key}={value}" for key, value in TINY.items()]
    line = command("train.py", "--config=tests/training/stem_student.py", *options)
    with contextlib.ExitStack() as stack:

        def start(workdir):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            own = [f"--workdir={workdir}", f"--coordinator={address}", "--num_processes=2"]
            found = []
            for number in range(2):
                process = subprocess.Popen(
                    [*line, *own, f"--process_id={number}"],
                    cwd=ROOT,
                    env=variables,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                stack.callback(process.kill)
                found.append(process)
            return found

        yield start


def ended(processes):
    printed = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], printed


@pytest.mark.slow
def test_two_processes_stop_together_and_learn_what_one_does(start, data_directory, tmp_path):
    """One of them is told to stop; started again, they go on to what one process with two devices learns."""
    two, one = tmp_path / "two", tmp_path / "one"
    both = start(two)
    metrics, deadline = two / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)
    codes, printed = ended(both)
    assert codes == [128 + signal.SIGTERM] * 2, printed
    stopped = {text.partition("train.py: stopped at step ")[2] for text in printed}
    assert len(stopped) == 1
    assert "of 84;" in stopped.pop()
    codes, printed = ended(start(two))
    assert codes == [0, 0], printed
    assert ["going on from step" in text for text in printed] == [True, False]
    assert ["top-1 accuracy" in text for text in printed] == [True, False]
    config = student.get_config()
    config.update_from_flattened_dict(TINY)
    config.data.directory = data_directory
    train(config, one, devices=jax.devices()[:2])
    evaluate_run(one, devices=jax.devices()[:2])
    texts = [(run / "metrics.jsonl").read_text() for run in (two, one)]
    lines = [[json.loads(line) for line in text.splitlines()] for text in texts]
    for key in ("loss", "validation/cross_entropy"):
        ours, theirs = ([line[key] for line in own if key in line] for own in lines)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, err_msg=key)
    found = [np.load(run / "predictions" / "test.npz")["student_probabilities"] for run in (two, one)]
    np.testing.assert_allclose(*found, atol=1e-4)
