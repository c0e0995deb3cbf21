"""One run over several processes: on a TPU pod slice, under Slurm, or told where the others are."""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from fairkd_jax.errors import UsageError


def join(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, *, detect: bool = False
) -> None:
    """Joins the processes of a run; does nothing where there is only this one.

    Must come before anything that uses a device. Several processes are found by themselves where Slurm starts
    several tasks (`srun`) or TPU_WORKER_HOSTNAMES names several hosts.

    Args:
      coordinator: HOST:PORT of process 0, with the next two; empty otherwise.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      detect: whether to ask the surroundings in any case, as on a TPU VM, which nothing in its environment
        tells from one by itself.

    Raises:
      UsageError: what is told does not fit together, or the others do not answer.
    """
    told = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(told) and not all(told):
        raise UsageError("--coordinator, --num_processes and --process_id are given together or not at all")
    if all(told) and process_id >= num_processes:
        raise UsageError(f"--process_id={process_id} is none of {num_processes} processes, counted from 0")
    if not (all(told) or detect or _several()):
        return
    # Its handler of SIGTERM would take the place of ours, which passes a Ctrl-C on as well.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if all(told):
            jax.distributed.initialize(coordinator, num_processes, process_id)
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"the processes of this run do not find one another: {reason}") from error


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
