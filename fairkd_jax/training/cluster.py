"""One run over several processes: on a TPU pod slice, under Slurm, or told where the others are."""

import os
import socket
import time
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from fairkd_jax.errors import UsageError

PATIENCE = 300.0  # seconds in which the processes of a run have to find one another


def join(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, *, detect: bool | None = None
) -> None:
    """Joins the processes of a run; does nothing where there is only this one.

    Must come before anything that uses a device.

    Args:
      coordinator: HOST:PORT of process 0, with the next two; empty otherwise.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      detect: whether to ask the surroundings. By default where Slurm started several tasks (`srun`) or
        TPU_WORKER_HOSTNAMES names several hosts; a TPU VM has to be told, as nothing in its environment tells
        a host of a slice from one by itself.

    Raises:
      UsageError: what is told does not fit together, or the others do not answer.
    """
    told = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(told) and not all(told):
        raise UsageError("--coordinator, --num_processes and --process_id are given together or not at all")
    if all(told) and process_id >= num_processes:
        raise UsageError(f"--process_id={process_id} is none of {num_processes} processes, counted from 0")
    host, _, port = coordinator.rpartition(":")
    if coordinator and not (host and port.isdigit()):
        raise UsageError(f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:1234")
    if not (all(told) or (_several() if detect is None else detect)):
        return
    # Its handler of SIGTERM would take the place of ours, which passes a Ctrl-C on as well.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if all(told):
            others = "the others" if process_id == 0 else f"process 0 at {coordinator}"
            logging.info("process %d of %d waits for %s", process_id, num_processes, others)
            if process_id:
                _wait_for(host, int(port))
            jax.distributed.initialize(coordinator, num_processes, process_id)
        else:
            jax.distributed.initialize(local_device_ids=own_gpus(os.environ))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"the processes of this run do not find one another: {reason}") from error


def _wait_for(host: str, port: int) -> None:
    """Waits until process 0 listens; JAX itself would end this process with a stack trace.

    Raises:
      UsageError: it does not.
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


def own_gpus(environment: Mapping[str, str]) -> list[int] | None:
    """Which of the GPUs that a Slurm task sees are its own; None where that is for JAX to find out.

    JAX itself takes the one whose number is the task's own on its node. That is not there where Slurm shows
    each task its own GPUs alone, and leaves the others idle where a task has several.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0].partition(",")[0]
    place = environment.get("SLURM_LOCALID", "")
    if not (visible and tasks.isdigit() and place.isdigit()):
        return None
    gpus = len(visible.split(","))
    if environment.get("SLURM_GPUS_PER_TASK") or int(tasks) == 1:  # it sees its own alone
        return list(range(gpus))
    each = gpus // int(tasks)
    return list(range(int(place) * each, (int(place) + 1) * each)) if each else None


def largest(value: int) -> int:
    """The largest of the processes' values; every process must ask."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.asarray(value))))


def smallest(value: float) -> float:
    """The smallest of the processes' values; every process must ask."""
    if jax.process_count() == 1:
        return value
    return float(np.min(multihost_utils.process_allgather(np.asarray(value))))


def agreed(value: bool) -> bool:
    """What process 0 found, such as whether a file is there: another process may look a moment later.

    Where processes decided for themselves, one could wait for others that went another way.
    """
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _several() -> bool:
    """Whether the surroundings name other processes of this run."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = [host for host in os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    return (tasks.isdigit() and int(tasks) > 1) or len(hosts) > 1
