"""Runs jobs with Ray: on this machine, or on the cluster that RAY_ADDRESS names."""

import os
import secrets
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from fairkd_jax.errors import MissingExtraError, UsageError
from fairkd_jax.sweep.resources import choose_resources
from fairkd_jax.sweep.worker import Job, Outcome, run_job

_LOST = 255  # exit code of a job whose machine or worker is lost
_STORE = 10**8  # bytes of Ray's object store, which a sweep does not use
_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_LOCAL = "local"
_TIMEOUT = 5.0  # seconds to reach the head of a cluster
_CURRENT = "ray_current_cluster"
_ADVICE = (
    "start the sweep on a machine of the cluster (after `ray start --address=HEAD:PORT` there), with the same"
    " Ray and Python; where the head has a token in ~/.ray/auth_token, each machine needs that file, this"
    " machine too, and RAY_AUTH_MODE=token for `ray start`"
)
_LOCAL_ADVICE = "read the logs in /tmp/ray/session_latest/logs"


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Sets the variables that Ray reads at import, unless the user has set the variables.

    A cluster that the sweep starts gets its own token. Without a token, Ray would write a new token to
    ~/.ray/auth_token, and every later cluster would ask for this token. Ray's drivers look for the token only
    in the mode "token". This mode does no harm where a cluster asks for no token.

    Args:
      environment: Environment variables, changed in place.
    """
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" in environment:
        return
    if not get_cluster_address(environment):
        environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    elif environment.keys() & _TOKENS or Path("~/.ray/auth_token").expanduser().exists():
        environment["RAY_AUTH_MODE"] = "token"


def get_cluster_address(environment: Mapping[str, str]) -> str:
    """Returns the address of the user's cluster; empty for a cluster on this machine alone."""
    address = environment.get("RAY_ADDRESS", "")
    return "" if address == _LOCAL else address


def import_ray() -> Any:
    """Imports Ray.

    Returns:
      Module `ray`.

    Raises:
      UsageError: Ray is not installed.
    """
    prepare_environment(os.environ)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("a sweep needs", "sweep", error) from error
    return ray


class RayLauncher(AbstractContextManager["RayLauncher"]):
    """Launcher that runs each job as a Ray task with the resources of a run.

    Attributes:
      run_resources: Number by name of the resource, for each run.
    """

    def __init__(self, *, cpus: int, gpus: float | None, resources: Mapping[str, float]) -> None:
        """Joins the cluster of RAY_ADDRESS, or starts a cluster on this machine.

        Args:
          cpus: CPU cores of a run; 0 takes all cores of the smallest machine, or 1 core beside an
            accelerator.
          gpus: GPUs of a run; None takes 1 where a machine has a GPU.
          resources: Number by name, for other Ray resources of a run.

        Raises:
          UsageError: Ray is not installed, the cluster cannot be joined, or no machine has the resources.
        """
        self._ray = import_ray()
        with ExitStack() as stack:
            connect_to_ray(self._ray, get_cluster_address(os.environ))
            stack.callback(self._ray.shutdown)
            machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self.run_resources = choose_resources(machines, cpus, gpus, resources)
            # Ray prints a page of the last output of each lost machine.
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            self._stack = stack.pop_all()
        # One process for each task (max_calls=1), so that all children of the task end too. No retries here:
        # the schedule starts a job again.
        self._task = self._ray.remote(
            max_retries=0,
            max_calls=1,
            num_cpus=self.run_resources["CPU"],
            num_gpus=self.run_resources["GPU"],
            resources={name: n for name, n in self.run_resources.items() if name not in ("CPU", "GPU")},
        )(run_job)

    def __exit__(self, *error: object) -> None:
        """Leaves the cluster; a cluster that the launcher started ends."""
        self._stack.close()

    def start(self, job: Job) -> Any:
        """Hands a job to Ray, which starts the job as soon as a machine has room.

        Args:
          job: Commands of a run.

        Returns:
          Handle of the job.
        """
        return self._task.options(name=job.name).remote(job)

    def collect_finished(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Waits for jobs, and returns the handle and outcome of each finished job.

        Args:
          handles: Handles of the jobs.
          seconds: Longest time to wait.
        """
        if not handles:
            return []
        ready, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=seconds)
        return [(handle, self._get_outcome(handle)) for handle in ready]

    def stop(self, handles: Sequence[Any], *, at_once: bool) -> None:
        """Asks jobs to save their state and end, or kills their workers.

        Args:
          handles: Handles of the jobs.
          at_once: Whether to kill the workers.
        """
        for handle in handles:
            self._ray.cancel(handle, force=at_once)

    def _get_outcome(self, handle: Any) -> Outcome:
        try:
            return Outcome(*self._ray.get(handle))
        except self._ray.exceptions.RayTaskError as error:  # `run_job` itself raised an exception
            return Outcome(1, " ".join(str(error.cause or error).split()))
        except self._ray.exceptions.RayError as error:
            return Outcome(_LOST, " ".join(str(error).split()).partition(". ")[0])


def connect_to_ray(ray: Any, address: str) -> None:
    """Joins a Ray cluster, or starts a cluster on this machine alone.

    Args:
      ray: Module `ray`.
      address: Address of the cluster; empty to start a cluster.

    Raises:
      UsageError: The cluster cannot be joined or started.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        check_address(address)
    else:
        address = _LOCAL  # not "auto", which may name a cluster that was killed
        options |= {"include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"Ray: {reason}; {_ADVICE if address != _LOCAL else _LOCAL_ADVICE}") from error


def check_address(address: str) -> None:
    """Checks that a program listens at an address; Ray's own check would take minutes.

    Args:
      address: HOST:PORT, ray://HOST:PORT, or "auto" for the address that Ray has stored on this machine. An
        address without a port is not checked.

    Raises:
      UsageError: No program listens there.
    """
    source = f"RAY_ADDRESS={address}"
    if address == "auto":
        with suppress(OSError):
            file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray", _CURRENT)
            address = file.read_text(encoding="utf-8").strip()
            source += f" is {address} in {file}, a file that a killed head leaves behind (remove the file)"
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdigit()):
        return  # Ray itself explains the error
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
    except OSError as error:
        raise UsageError(
            f"{source}: no program answers there ({error.strerror or error}); start a cluster with"
            " `ray start --head`, or unset RAY_ADDRESS to run on this machine alone"
        ) from None
