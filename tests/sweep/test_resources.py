"""Resources and environment of a run, and the address of a cluster."""

import secrets
import socket
import sys

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.sweep import ray_runner
from fairkd_jax.sweep.ray_runner import RayLauncher, check_address, prepare_environment
from fairkd_jax.sweep.resources import choose_resources, parse_resources, select_environment

SMALL = {"CPU": 4.0, "memory": 1e9, "node:10.0.0.1": 1.0}
LARGE = {"CPU": 16.0, "GPU": 8.0, "memory": 1e9}
POD = {"CPU": 100.0, "TPU": 4.0}


@pytest.mark.parametrize(
    ("machines", "asked", "found"),
    [
        ([SMALL], {}, {"CPU": 4.0, "GPU": 0.0}),
        ([SMALL, {"CPU": 2.0}, {"GPU": 1.0}], {"gpus": 0.0}, {"CPU": 2.0, "GPU": 0.0}),
        ([SMALL], {"cpus": 1}, {"CPU": 1, "GPU": 0.0}),
        ([LARGE], {}, {"CPU": 1.0, "GPU": 1.0}),
        ([LARGE], {"gpus": 0.5, "cpus": 2}, {"CPU": 2, "GPU": 0.5}),
        ([LARGE, SMALL], {"gpus": 0.0}, {"CPU": 4.0, "GPU": 0.0}),
        ([POD], {"resources": {"TPU": 4.0}}, {"CPU": 1.0, "GPU": 0.0, "TPU": 4.0}),
        ([POD], {"resources": {"TPU": 0.0}}, {"CPU": 100.0, "GPU": 0.0, "TPU": 0.0}),
    ],
)
def test_what_a_run_asks_for(machines, asked, found):
    assert choose_resources(machines, **{"cpus": 0, "gpus": None, "resources": {}} | asked) == found


def test_what_no_machine_has_is_refused():
    with pytest.raises(UsageError) as caught:
        choose_resources([SMALL, LARGE], 8, 9.0, {})
    assert str(caught.value) == (
        "no machine has the resources of a run (CPU 8, GPU 9); the machines have CPU 16, GPU 8; CPU 4;"
        " lower --cpus, --gpus or --resources"
    )
    with pytest.raises(UsageError, match="such as --resources TPU=4"):
        choose_resources([POD], 0, None, {})


def test_resources_are_read():
    assert parse_resources([]) == {}
    assert parse_resources(["TPU=4", "big=0.5"]) == {"TPU": 4.0, "big": 0.5}
    with pytest.raises(UsageError, match="is not NAME=NUMBER"):
        parse_resources(["TPU"])


def test_a_run_is_told_of_the_environment_what_it_needs():
    given = {"JAX_PLATFORMS": "cpu", "FAIRKD_DATA": "/data", "HOME": "/root", "CUDA_VISIBLE_DEVICES": "3"}
    told = {"JAX_PLATFORMS": "cpu", "FAIRKD_DATA": "/data"}
    assert select_environment({"CPU": 2.0, "GPU": 0.0}, given) == told | {"NPROC": "2"}
    assert select_environment({"CPU": 2.0, "GPU": 0.0}, {"NPROC": "9"}) == {"NPROC": "9"}
    assert select_environment({"CPU": 2.0, "GPU": 1.0}, given) == told
    shared = select_environment({"CPU": 2.0, "GPU": 0.5}, given)
    assert shared == told | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}


def test_a_cluster_of_our_own_has_a_token_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ({}, {"RAY_ADDRESS": ""}, {"RAY_ADDRESS": "local"}):
        prepare_environment(environment := dict(given))
        assert environment["RAY_AUTH_MODE"] == "token"
        assert len(environment["RAY_AUTH_TOKEN"]) == 64
    prepare_environment(environment := {"RAY_AUTH_MODE": "disabled"})
    assert "RAY_AUTH_TOKEN" not in environment
    assert not list(tmp_path.iterdir())


def test_the_token_of_a_cluster_is_used_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    named = {"RAY_ADDRESS": "10.0.0.1:6379"}
    prepare_environment(environment := dict(named))
    assert "RAY_AUTH_MODE" not in environment
    prepare_environment(environment := named | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    assert environment["RAY_AUTH_MODE"] == "token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    prepare_environment(environment := dict(named))
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in environment


def test_a_cluster_that_does_not_answer_is_named(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_address(address)
    with pytest.raises(
        UsageError, match=f"RAY_ADDRESS={address}: no program answers there .*unset RAY_ADDRESS"
    ):
        check_address(address)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    check_address("auto")  # there is no such file: Ray says so
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / ray_runner._CURRENT).write_text(address)
    with pytest.raises(
        UsageError, match=rf"auto is {address} in {tmp_path}.*killed head leaves behind \(remove the file\)"
    ):
        check_address("auto")


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(ray_runner, "prepare_environment", lambda environment: None)
    with pytest.raises(UsageError, match="--extra sweep"):
        RayLauncher(cpus=1, gpus=None, resources={})
