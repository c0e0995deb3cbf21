"""The processes of a run: on a TPU pod slice, under Slurm, or with given addresses."""

import ipaddress
import os
import socket
import time
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from fairkd_jax.errors import UsageError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
PATIENCE = 300.0  # seconds until a process gives up its wait for process 0


def join_processes(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, *, detect: bool | None = None
) -> None:
    """Joins the processes of a run; does nothing in a run of a single process.

    The call must come before any use of a device.

    Args:
      coordinator: HOST:PORT of process 0; empty where the next two are not given.
      num_processes: Number of processes; 0 where it is not given.
      process_id: Number of this process, from 0; -1 where it is not given.
      detect: Whether to find the other processes by the environment. The default is true where Slurm started
        several tasks (`srun`) or TPU_WORKER_HOSTNAMES names several hosts. A TPU VM needs an explicit value,
        because the environment of a host in a slice looks like the environment of a single host.

    Raises:
      UsageError: The arguments do not fit together, or the other processes do not answer.
    """
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(given) and not all(given):
        raise UsageError("--coordinator, --num_processes and --process_id are given together or not at all")
    if all(given) and process_id >= num_processes:
        raise UsageError(f"--process_id={process_id} is none of {num_processes} processes, counted from 0")
    host, _, port = coordinator.rpartition(":")
    if coordinator and not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise UsageError(f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:1234")
    if not (all(given) or (_has_other_processes() if detect is None else detect)):
        return
    # The handler of this service would replace ours, which handles Ctrl-C as well.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if all(given):
            others = "the others" if process_id == 0 else f"process 0 at {coordinator}"
            logging.info("process %d of %d waits for %s", process_id, num_processes, others)
            # JAX's own default is to listen on every address of the machine.
            bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
            if process_id:
                _wait_for_port(host, int(port))
            else:
                _check_can_listen(bind)
            jax.distributed.initialize(coordinator, num_processes, process_id, coordinator_bind_address=bind)
        else:
            jax.distributed.initialize(local_device_ids=find_own_gpus(os.environ))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"the processes of this run do not find one another: {reason}") from error


def _check_can_listen(address: str) -> None:
    """Checks that process 0 can listen at HOST:PORT; JAX itself would end this process with a stack trace.

    Raises:
      UsageError: The address is none of this machine, or the port is taken.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, _, _, _, place = found[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"process 0 cannot listen at {address} ({reason}); give an address of this machine and a free"
            " port, or set JAX_COORDINATOR_BIND_ADDRESS where the others reach it at another address"
        ) from None
    if ipaddress.ip_address(str(place[0])).is_loopback and host.strip("[]") not in _LOOPBACK:
        logging.warning(
            "%s is %s on this machine: processes on other machines cannot reach it; give its IP address",
            host,
            place[0],
        )


def _wait_for_port(host: str, port: int) -> None:
    """Waits until process 0 listens; JAX itself would end this process with a stack trace.

    Raises:
      UsageError: Process 0 does not answer in `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or error
                raise UsageError(
                    f"process 0 does not answer at {host}:{port} ({reason}); start it there"
                ) from None
        time.sleep(0.5)


def find_own_gpus(environment: Mapping[str, str]) -> list[int] | None:
    """Returns the numbers of a Slurm task's own GPUs among the GPUs that the task sees.

    JAX itself takes the GPU whose number is the task's number on its node. Such a GPU does not exist where
    Slurm shows each task its own GPUs alone. And where a task has several GPUs, JAX leaves the rest idle.

    Args:
      environment: The environment variables of the task.

    Returns:
      The numbers, from 0; None where the environment does not determine them, and JAX must choose.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0].partition(",")[0]
    place = environment.get("SLURM_LOCALID", "")
    if not (visible and tasks.isdigit() and place.isdigit()):
        return None
    gpus = len(visible.split(","))
    if environment.get("SLURM_GPUS_PER_TASK") or int(tasks) == 1:  # the task sees its own GPUs alone
        return list(range(gpus))
    each = gpus // int(tasks)
    return list(range(int(place) * each, (int(place) + 1) * each)) if each else None


def max_over_hosts(value: int) -> int:
    """Returns the largest value of all processes; every process must call this function."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.asarray(value))))


def min_over_hosts(value: float) -> float:
    """Returns the smallest value of all processes; every process must call this function."""
    if jax.process_count() == 1:
        return value
    return float(np.min(multihost_utils.process_allgather(np.asarray(value))))


def broadcast_from_host0(value: bool) -> bool:
    """Returns the value of process 0, such as whether a file exists; every process must call this function.

    Another process may look for the file a moment later. With values of their own, processes could take
    different branches, and then wait for each other without end.

    Args:
      value: The value of this process.
    """
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _has_other_processes() -> bool:
    """Returns whether the environment names other processes of this run."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = [host for host in os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    return (tasks.isdigit() and int(tasks) > 1) or len(hosts) > 1
